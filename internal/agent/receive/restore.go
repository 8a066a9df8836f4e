package receive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"ferry/internal/agent"
	"ferry/internal/nix"

	"golang.org/x/sys/unix"
)

// Restore puts paths back that Nix has in its database and that are not on the disk, or that were found damaged by a power cut.
// Nix itself would ignore them, as they are valid.
func (s *Receiver) Restore(ctx context.Context, stream *agent.DataReader) (*agent.ShipResult, error) {
	// Nothing is shipped now, and Nix must not hold a path that comes.
	s.EndParked()
	z, err := NewDecoder(stream)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	in := bufio.NewReaderSize(z, 64<<10)
	doubt, err := s.doubts(ctx)
	if err != nil {
		return nil, err
	}
	result := new(agent.ShipResult)
	for {
		header, err := readHeader(in)
		if err != nil {
			return nil, &StreamError{err}
		}
		if header == nil {
			break
		}
		if len(header.Bases) > 0 || header.Offset > 0 {
			return nil, &StreamError{fmt.Errorf("%s is not whole", header.Path)}
		}
		if err := s.restorePath(ctx, header, doubt.before[header.Path], &exactReader{r: in, left: header.NarSize}); err != nil {
			return nil, err
		}
		doubt.look(header.Path, true)
		result.Registered++
	}
	if len(doubt.whole) > 0 {
		// The names, too, before it is forgotten that something else was there.
		if err := StoreToDisk(ctx, s.opts.Root); err != nil {
			return nil, err
		}
	}
	if err := s.settleDoubts(doubt); err != nil {
		return nil, err
	}
	result.Peak = peakMemory()
	return result, stream.Drain()
}

// restorePath puts one path back. It stands under its name only once it is whole and is what Nix has registered. What is there is
// left as it is, unless it is in doubt.
func (s *Receiver) restorePath(ctx context.Context, header *agent.ShipHeader, doubtful bool, nar *exactReader) error {
	p := header.Path
	serve, err := s.store.use()
	if err != nil {
		return err
	}
	// It is not collected while it is put back.
	if _, err := serve.ValidPaths([]nix.StorePath{p}, true, false); err != nil {
		return s.store.died(err)
	}
	infos, err := serve.PathInfos([]nix.StorePath{p})
	switch {
	case err != nil:
		return s.store.died(err)
	case len(infos) == 0:
		return &agent.ResponseError{Kind: agent.KindInvalid, Text: string(p) + " is not valid on the target (any more)"}
	case infos[0].NarHash != header.NarHash || infos[0].NarSize != header.NarSize:
		return fmt.Errorf("%s is another build than the one that the target's Nix has registered", p)
	}
	if !doubtful && s.opts.Root.Exists(string(p)) {
		if _, err = io.Copy(io.Discard, nar); err != nil {
			return &StreamError{err}
		}
		return nil
	}
	err = withWritableStore(filepath.Dir(s.opts.Root.Path(string(p))), func(folder string) error {
		return putBack(ctx, folder, p, header.NarHash, nar)
	})
	switch {
	case nar.err != nil:
		return &StreamError{nar.err}
	case err != nil:
		return fmt.Errorf("restore %s: %w", p, err)
	case nar.left > 0:
		return &StreamError{fmt.Errorf("the NAR of %s is followed by %d bytes", p, nar.left)}
	}
	return nil
}

// putBack makes a path of the store in folder from its NAR, in the place of what is there. What is left of one that was killed
// has no store path's name: Nix's next collection of garbage takes it away.
func putBack(ctx context.Context, folder string, p nix.StorePath, hash string, nar io.Reader) (err error) {
	// Root's alone: who may write to the store's folder, as Nix's builders may, must not reach what is not finished.
	temp, err := os.MkdirTemp(folder, ".ferry-restore-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	made := filepath.Join(temp, "path")
	if err := nix.RestorePath(ctx, nar, made); err != nil {
		return err
	}
	if got, err := narHash(ctx, made); err != nil {
		return err
	} else if got != hash {
		return fmt.Errorf("what has arrived has the hash %s instead of %s", got, hash)
	}
	// A loss of power is one of the ways in which a path comes to be in the database and not on the disk.
	if err := syncFileSystem(temp); err != nil {
		return err
	}
	place := filepath.Join(folder, p.Base())
	if err := os.Rename(place, filepath.Join(temp, "before")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(made, place)
}

func syncFileSystem(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// withWritableStore runs f with a folder that is the store's, and can be written to. A NixOS has it mounted read-only, over
// itself: f then runs with mounts of its own, in which it is not, as Nix's own programs do. Nobody else sees them.
func withWritableStore(store string, f func(folder string) error) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(store, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", store, err)
	}
	if fs.Flags&unix.ST_RDONLY == 0 {
		return f(store)
	}
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
		// The bits of these flags are the same in both calls.
		stay := uintptr(fs.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		if err := unix.Mount("none", store, "", unix.MS_REMOUNT|unix.MS_BIND|stay, ""); err != nil {
			return fmt.Errorf("make %s writable: %w", store, err)
		}
		return f(store)
	})
}

// onOwnThread runs f in a thread that ends with it, and is not the first one: what /proc/self says is about that.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// A thread that is never unlocked ends with its goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// While this goroutine holds it, another one gets another thread.
			defer runtime.UnlockOSThread()
			done <- onOwnThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}
