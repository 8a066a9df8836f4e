package nix

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"ferry/internal/run"
)

// Plan is what a build would do.
type Plan struct {
	Build         []StorePath // derivations, dependencies first
	Fetch         []StorePath // from substituters
	FetchBytes    uint64      // what Fetch downloads; Nix rounds it
	UnpackedBytes uint64      // the same, unpacked
	Unknown       []StorePath // neither valid, nor to be built or fetched
}

// Plan asks what realising the derivations would build and fetch.
func (c *Client) Plan(ctx context.Context, drvs ...StorePath) (Plan, error) {
	if len(drvs) == 0 {
		return Plan{}, nil
	}
	args := []string{"--realise", "--dry-run"}
	for _, d := range drvs {
		args = append(args, string(d))
	}
	cmd := c.command("nix-store", args...)
	var plan planReader
	lines := &lineWriter{each: plan.line}
	cmd.Err = lines
	if err := c.run(ctx, cmd); err != nil {
		return Plan{}, fmt.Errorf("plan the build: %w", err)
	}
	lines.end()
	return plan.Plan, nil
}

// planReader reads what nix-store --dry-run writes.
type planReader struct {
	Plan
	list *[]StorePath // that the paths go to
}

var fetchLine = regexp.MustCompile(`^th(?:is path|ese \d+ paths) will be fetched \(([\d.]+) ([KMGT])iB download, ([\d.]+) ([KMGT])iB unpacked\):$`)

func (p *planReader) line(line string) {
	line = run.Clean(line)
	if name, indented := strings.CutPrefix(line, "  "); indented {
		if path, err := ParseStorePath(name); err == nil && p.list != nil {
			*p.list = append(*p.list, path)
		}
		return
	}
	switch {
	case strings.HasSuffix(line, "will be built:"):
		p.list = &p.Build
	case strings.Contains(line, " will be fetched"):
		p.list = &p.Fetch
		if m := fetchLine.FindStringSubmatch(line); m != nil {
			p.FetchBytes, p.UnpackedBytes = parseSize(m[1], m[2]), parseSize(m[3], m[4])
		}
	case strings.HasPrefix(line, "don't know how to build"):
		p.list = &p.Unknown
	default:
		p.list = nil
	}
}

// parseSize is a number of bytes given in KiB, MiB, GiB or TiB.
func parseSize(number, unit string) uint64 {
	size, err := strconv.ParseFloat(number, 64)
	if err != nil || size > 1<<20 {
		return 0
	}
	power := strings.Index("KMGT", unit) + 1
	return uint64(math.Round(size * float64(uint64(1)<<(10*power))))
}
