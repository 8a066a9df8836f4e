package deploy

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/prose"
	"ferry/internal/session"
	"ferry/internal/ship"
)

// complete sees that all that p needs is on the target's disk before p is activated. Nix tells only what its database has: a
// path that was removed behind its back is not shipped, and its absence would be found in the middle of an activation, or at the
// next boot. Nor does Nix know what a power cut has left of a ship: the target reads that, once. What this machine has is put back;
// what it has not is named.
//
// Of what the target says that it lacks, only what p needs is sent, as this machine knows it, and each path once: a target that
// lies must not be able to read this machine's store. Unless ours says that p was made here, nothing is sent at all.
func (d *deployment) complete(ctx context.Context, p nix.StorePath, ours bool) error {
	reported, sent := false, map[nix.StorePath]bool{}
	err := d.Link.Do(ctx, func(conn *agent.Session) error {
		for {
			got, err := conn.OnDisk(ctx, p, false)
			if err != nil {
				return err
			}
			if got.Doubted > 0 && !reported {
				d.Note(fmt.Sprintf("a ship was cut off there by the end of its power: what has arrived of it was read, %s", prose.Count(got.Doubted, "path")))
			}
			if len(got.Wrong) == 0 {
				return nil
			}
			gone := &goneError{paths: got.Wrong, more: got.More}
			if !reported {
				reported = true
				d.Note(gone.Error() + "; what this machine has of that is put back. Look at that machine's disk, and run there: sudo nix-store --verify --check-contents")
			}
			if !ours {
				return gone
			}
			infos, err := d.sendable(ctx, p, got.Wrong, sent)
			if err == nil && len(infos) == 0 {
				return gone
			}
			if err == nil {
				err = d.restore(ctx, conn, infos)
			}
			if err != nil {
				return fmt.Errorf("%w: %w", gone, err)
			}
			for _, info := range infos {
				sent[info.Path] = true
			}
			d.Note(prose.Count(len(infos), "path") + " put back on the target's disk")
		}
	})
	if err != nil {
		return d.Fail(session.Ship, session.Unchanged, session.FullDisk(err))
	}
	return nil
}

// sendable are those of the paths that p needs, that this machine has as the target's Nix has registered them, and that were not
// sent yet.
func (d *deployment) sendable(ctx context.Context, p nix.StorePath, gone []agent.WrongPath, sent map[nix.StorePath]bool) ([]nix.PathInfo, error) {
	local, err := d.Nix.OpenServe(ctx)
	if err != nil {
		return nil, err
	}
	defer local.Close()
	valid, err := local.Serve.ValidPaths([]nix.StorePath{p}, false, false)
	if err != nil || len(valid) == 0 {
		return nil, err
	}
	closure, err := local.Serve.Closure(valid)
	if err != nil {
		return nil, err
	}
	registered := make(map[nix.StorePath]string, len(gone))
	for _, g := range gone {
		registered[g.Path] = g.NarHash
	}
	paths := slices.DeleteFunc(closure, func(p nix.StorePath) bool {
		_, isGone := registered[p]
		_, err := os.Lstat(string(p))
		return !isGone || sent[p] || err != nil
	})
	if len(paths) == 0 {
		return nil, nil
	}
	infos, err := local.Serve.PathInfos(paths)
	// Another build of the same is not what the target's Nix has registered.
	return slices.DeleteFunc(infos, func(info nix.PathInfo) bool { return info.NarHash != registered[info.Path] }), err
}

// restore puts paths back on the target's disk.
func (d *deployment) restore(ctx context.Context, conn *agent.Session, infos []nix.PathInfo) error {
	var size uint64
	for _, info := range infos {
		size += info.NarSize
	}
	if err := session.Fits(conn.Hello.Facts, size); err != nil {
		return err
	}
	restored, err := ship.Restore(ctx, conn, infos)
	if err == nil && restored != len(infos) {
		err = fmt.Errorf("the agent has put back %d of %d paths", restored, len(infos))
	}
	return err
}

// goneError is a target whose disk has not, or not whole, what its Nix has.
type goneError struct {
	paths []agent.WrongPath
	more  int // that are not among paths
}

// maxNamed is how many paths are named in one line.
const maxNamed = 3

func (e *goneError) Error() string {
	n := len(e.paths) + e.more
	names := make([]string, 0, maxNamed)
	for _, p := range e.paths[:min(maxNamed, len(e.paths))] {
		names = append(names, string(p.Path))
	}
	is := "are"
	if n == 1 {
		is = "is"
	}
	damaged := ""
	if slices.ContainsFunc(e.paths, func(p agent.WrongPath) bool { return !p.Gone }) {
		damaged = ", or not whole"
	}
	text := fmt.Sprintf("%s that the target's Nix takes for valid %s not on its disk%s: %s", prose.Count(n, "path"), is, damaged, strings.Join(names, ", "))
	if n > len(names) {
		text += fmt.Sprintf(" and %d more", n-len(names))
	}
	return text
}

// Hints says what the user can do about it.
func (e *goneError) Hints() []string {
	return []string{
		"on the target, if one of its caches has them: sudo nix-store --repair-path " + string(e.paths[0].Path) + ", or all: sudo nix-store --verify --check-contents --repair",
		"or run this again on the machine that has deployed them: what that has is put back",
	}
}
