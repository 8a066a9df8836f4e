package receive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// maxWrong is how many paths are told that are not on the disk as they should be: they must fit into one frame.
const maxWrong = 1000

// OnDisk compares the closure of r's toplevel with the disk. Nix's database says what should be there, and Nix does not look:
// who has removed a path with rm, or lost it with a disk, has a Nix that takes it for valid. What a power cut may have made empty
// (see arriving) is read, for who is about to activate it.
func (s *Receiver) OnDisk(ctx context.Context, r agent.Request) (*agent.OnDiskResult, error) {
	infos, err := s.closureInfos(r.Toplevel)
	if err != nil {
		return nil, err
	}
	doubt, err := s.doubts(ctx)
	if err != nil {
		return nil, err
	}
	result := &agent.OnDiskResult{Paths: len(infos)}
	for _, info := range infos {
		wrong, err := wrongOf(ctx, s.opts.Root, info, r.Contents || doubt.before[info.Path])
		if err != nil {
			return nil, err
		}
		doubt.look(info.Path, wrong == nil)
		switch {
		case wrong == nil:
		case len(result.Wrong) == maxWrong:
			result.More++
		default:
			result.Wrong = append(result.Wrong, *wrong)
		}
	}
	result.Doubted = len(doubt.whole)
	return result, s.settleDoubts(doubt)
}

// Lacking is how many paths of the deployed bundle are not on the disk or in doubt, as far as that is known: ferry may find
// that there is nothing else to do. It is no request of its own, which would cost a round trip, and one process as long as others.
func (s *Receiver) Lacking(ctx context.Context, bundle string) int {
	if !s.opts.Locked || bundle == "" {
		return 0
	}
	out, err := s.opts.Runner.Output(ctx, run.Command{Argv: []string{"nix-store", "--query", "--requisites", bundle}})
	if err != nil {
		return 0
	}
	var doubtful map[nix.StorePath]bool
	if a, err := readArriving(s.opts.Root); err == nil {
		doubtful = setOf(a.Doubtful)
	}
	lacking := 0
	for line := range strings.Lines(string(out)) {
		p := strings.TrimSuffix(line, "\n")
		if _, err := os.Lstat(s.opts.Root.Path(p)); errors.Is(err, os.ErrNotExist) || doubtful[nix.StorePath(p)] {
			lacking++
		}
	}
	return lacking
}

// wrongOf tells what is wrong with a path on the disk; nil: nothing. Its content is looked at only if contents says so. An error
// says that it is not known.
func wrongOf(ctx context.Context, r machine.Root, info nix.PathInfo, contents bool) (*agent.WrongPath, error) {
	wrong := &agent.WrongPath{Path: info.Path, NarHash: info.NarHash}
	switch _, err := os.Lstat(r.Path(string(info.Path))); {
	case errors.Is(err, os.ErrNotExist):
		wrong.Gone = true
		return wrong, nil
	case err != nil && !contents:
		return nil, fmt.Errorf("look at %s: %w", info.Path, err)
	case !contents:
		return nil, nil
	}
	hash, err := narHash(ctx, r.Path(string(info.Path)))
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, os.ErrPermission) && os.Geteuid() != 0:
		return nil, err
	case err != nil:
		wrong.Reason = run.Clean(err.Error())
	case hash != info.NarHash:
		wrong.Reason = "its content is not what was registered"
	default:
		return nil, nil
	}
	return wrong, nil
}

// narHash is the hash of what is at a path, as Nix registers it.
func narHash(ctx context.Context, p string) (string, error) {
	sum := sha256.New()
	if err := nix.DumpPath(ctx, sum, p); err != nil {
		return "", err
	}
	return nix.NarHashOf([sha256.Size]byte(sum.Sum(nil))), nil
}
