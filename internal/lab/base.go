package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed base.sh
var baseRecipe string

// knownSuites are the Debian releases that a machine can be made of.
var knownSuites = map[string]bool{"bookworm": true, "trixie": true, "sid": true}

// Base returns the base root of a Debian suite ("bookworm", "trixie", "sid"), after making it if it is not there yet:
// that takes about a minute and downloads some 150 MB from the mirror this machine's own apt uses.
//
// Base roots are kept in $FERRY_LAB_CACHE, else ferry-lab in the user's cache folder, under a name that changes with
// their recipe; the folder may be deleted whenever no lab runs. Several callers at once make a root only once. Nobody
// writes to a base root: machines are overlays on it.
func Base(ctx context.Context, suite string) (string, error) {
	if !knownSuites[suite] {
		return "", fmt.Errorf("base root: unknown suite %q", suite)
	}
	root, err := basePath(suite)
	if err != nil {
		return "", fmt.Errorf("base root: %w", err)
	}
	if err := makeOnce(ctx, root, func(fresh string) error { return debootstrap(ctx, suite, fresh) }); err != nil {
		return "", fmt.Errorf("base root %s: %w", suite, err)
	}
	return root, nil
}

// basePath names the base root of a suite, whether it exists or not.
func basePath(suite string) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(baseRecipe))
	return filepath.Join(cache, suite+"-"+hex.EncodeToString(sum[:6])), nil
}

// cacheFolder is where what is made once is kept.
func cacheFolder() (string, error) {
	if cache := os.Getenv(envCache); cache != "" {
		return cache, nil
	}
	user, err := os.UserCacheDir()
	return filepath.Join(user, "ferry-lab"), err
}

// debootstrap runs the recipe of base roots.
func debootstrap(ctx context.Context, suite, root string) error {
	argv := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"sh", "-s", "--", suite, root}
	if mirror := hostMirror("/etc"); mirror != "" {
		argv = append(argv, mirror)
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, "unshare", argv...)
	cmd.Stdin = strings.NewReader(baseRecipe)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("debootstrap: %w\n%s", err, lastLines(log.String(), 20))
	}
	return nil
}

// makeOnce makes the folder path unless it exists: by work, in an empty folder next to it that then gets its name. Of
// several callers at once, in other processes too, one does the work and the others wait for it.
func makeOnce(ctx context.Context, path string, work func(fresh string) error) error {
	if isDir(path) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if isDir(path) {
		return nil
	}
	// Under the lock, whatever else has such a name was left by a process that was killed.
	stale, err := filepath.Glob(path + ".new-*")
	if err != nil {
		return err
	}
	for _, dir := range stale {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	fresh, err := os.MkdirTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	// MkdirTemp keeps everyone else out, which would become the mode of a machine's "/".
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	if err := work(fresh); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// lockFile takes the lock that path stands for, waiting for whoever has it. The lock ends with the process at the latest.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			f.Close()
			return nil, err
		}
	}
}

// pause waits for d, or less if ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// lastLines returns the last n lines of text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
