package nix

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Version is that of an installed Nix.
type Version struct {
	Edition             string // "Nix", "Lix" or "Determinate Nix"
	Major, Minor, Patch int    // Lix counts from 2.90 on its own, having left Nix at 2.18
	Text                string // as Nix writes it, "2.34.0pre20260101_abcdef"
}

func (v Version) String() string { return v.Edition + " " + v.Text }

// TooOldError is an installed Nix older than 2.8, the first that evaluates what ferry writes.
type TooOldError struct{ Version Version }

func (e *TooOldError) Error() string { return fmt.Sprintf("%s is too old: ferry needs 2.8", e.Version) }

// Hints says where a newer one comes from.
func (e *TooOldError) Hints() []string {
	return []string{"https://nixos.org/download has a newer one; so has every distribution's release since 2023"}
}

var versionLine = regexp.MustCompile(`^\S+ \(([^)]*)\) ((\d+)\.(\d+)(?:\.(\d+))?\S*)$`)

// ParseVersion reads what a nix command prints for --version.
func ParseVersion(s string) (Version, error) {
	first, _, _ := strings.Cut(s, "\n")
	m := versionLine.FindStringSubmatch(strings.TrimSpace(first))
	if m == nil {
		return Version{}, fmt.Errorf("%q is not a version of Nix", shorten(first))
	}
	v := Version{Edition: "Nix", Text: m[2]}
	switch {
	case strings.HasPrefix(m[1], "Lix"):
		v.Edition = "Lix"
	case strings.HasPrefix(m[1], "Determinate"):
		v.Edition = "Determinate Nix"
	}
	for i, n := range []*int{&v.Major, &v.Minor, &v.Patch} {
		if m[3+i] == "" {
			continue
		}
		var err error
		if *n, err = strconv.Atoi(m[3+i]); err != nil {
			return Version{}, fmt.Errorf("%q is not a version of Nix: %w", shorten(first), err)
		}
	}
	return v, nil
}

// Version asks the installed Nix, once for a Client. The error is a [*MissingError] if there is none and a [*TooOldError], besides the
// version, if it is older than 2.8.
func (c *Client) Version(ctx context.Context) (Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != nil {
		return *c.version, nil
	}
	out, err := c.output(ctx, c.command("nix-store", "--version"))
	if err != nil {
		return Version{}, err
	}
	v, err := ParseVersion(out)
	if err != nil {
		return Version{}, err
	}
	if v.Major < 2 || v.Major == 2 && v.Minor < 8 {
		return v, &TooOldError{v}
	}
	c.version = &v
	return v, nil
}
