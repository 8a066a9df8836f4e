package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BuilderOptions say what a building machine is like. The zero value is one of bookworm where root works.
type BuilderOptions struct {
	// Suite is its Debian release, and so its Nix: "bookworm" (2.8; the default), "trixie" (2.26), "sid".
	Suite string
	// Plain makes a plain user, deployer, work there, who owns the Nix store. Else root does.
	Plain bool
	// Aarch64 lets its Nix build for aarch64-linux too, by emulation. Emulation itself works in every lab.
	Aarch64 bool
}

// Builder is a building machine: a root file system with a Nix store, a home and an ssh configuration of its own, in
// the network of the lab's targets. It has no system manager; it is commands run in that root.
type Builder struct {
	dir  string
	run  run
	opts BuilderOptions

	mu sync.Mutex // guards the files that Know adds to
}

// worker is who works on a builder with BuilderOptions.Plain.
const (
	worker    = "deployer"
	workerUID = 1000
)

const builderNixConf = `build-users-group =
sandbox = false
substituters =
fsync-metadata = false
`

const builderSSHConfig = `# An entry for each target follows.
# Several ssh at once that learn host keys would rewrite known_hosts over each other.
UpdateHostKeys no
IdentitiesOnly yes
IdentityFile ~/.ssh/id_ed25519
`

// OpenBuilder makes a building machine. Call Close when done; what a lab has not closed ends with the lab.
func OpenBuilder(ctx context.Context, opts BuilderOptions) (_ *Builder, err error) {
	r, err := current()
	if err != nil {
		return nil, err
	}
	if opts.Suite == "" {
		opts.Suite = "bookworm"
	}
	base, err := Base(ctx, opts.Suite)
	if err != nil {
		return nil, err
	}
	dir, n, err := r.claim("builders", 1000)
	if err != nil {
		return nil, fmt.Errorf("builder: %w", err)
	}
	b := &Builder{dir: dir, run: r, opts: opts}
	if err := b.furnish(ctx, base, n); err != nil {
		return nil, fmt.Errorf("builder: %w", errors.Join(err, b.Close()))
	}
	return b, nil
}

// NewBuilder is OpenBuilder for a test: it fails the test if there is trouble, and closes the builder when the test ends.
func NewBuilder(tb testing.TB, opts BuilderOptions) *Builder {
	tb.Helper()
	b, err := OpenBuilder(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Errorf("close builder: %v", err)
		}
	})
	return b
}

// Close removes the machine. Its commands must have ended.
func (b *Builder) Close() error {
	for _, place := range builderMounts {
		err := unix.Unmount(b.Path(place), unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", place, err)
		}
	}
	return os.RemoveAll(b.dir)
}

func (b *Builder) furnish(ctx context.Context, base string, n int) error {
	if err := mountOverlay(base, b.dir); err != nil {
		return err
	}
	if err := b.mountInside(ctx); err != nil {
		return err
	}
	key, err := os.ReadFile(b.run.keyFile())
	if err != nil {
		return err
	}
	passwd, err := os.ReadFile(b.Path("etc/passwd"))
	if err != nil {
		return err
	}
	nixConf := builderNixConf
	if b.opts.Aarch64 {
		nixConf += "extra-platforms = aarch64-linux\n"
	}
	for name, text := range map[string]string{
		"etc/passwd":       string(passwd) + fmt.Sprintf("%s:x:%d:%d::/home/%[1]s:/bin/bash\n", worker, workerUID, workerUID),
		"etc/hosts":        fmt.Sprintf("127.0.0.1 localhost builder%d\n", n),
		"etc/nix/nix.conf": nixConf,
	} {
		if err := os.WriteFile(b.Path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := b.WriteFile(filepath.Join(b.Home(), ".ssh/id_ed25519"), key, 0o600); err != nil {
		return err
	}
	if err := b.WriteFile(filepath.Join(b.Home(), ".ssh/config"), []byte(builderSSHConfig), 0o600); err != nil {
		return err
	}
	if b.opts.Plain {
		return filepath.WalkDir(b.Path("nix"), func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, workerUID, workerUID))
		})
	}
	return nil
}

// builderMounts are unmounted in this order.
var builderMounts = [...]string{assembledPath, "/run", "/sys", "/dev", "/proc", "/"}

// mountInside mounts what a root file system needs for commands to run in it, and the lab's nixpkgs.
func (b *Builder) mountInside(ctx context.Context) error {
	assembled, err := assembled(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.Path(assembledPath), 0o755); err != nil {
		return err
	}
	for place, what := range map[string]string{"/proc": "/proc", "/dev": "/dev", "/sys": "/sys", assembledPath: assembled} {
		if err := unix.Mount(what, b.Path(place), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", place, err)
		}
	}
	if err := unix.Mount("", b.Path(assembledPath), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s: %w", assembledPath, err)
	}
	if err := unix.Mount("tmpfs", b.Path("/run"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

// Path is where a file of the builder is, seen from the test.
func (b *Builder) Path(name string) string { return filepath.Join(b.dir, "root", name) }

// Home is the home folder of who works there, on the builder.
func (b *Builder) Home() string {
	if b.opts.Plain {
		return "/home/" + worker
	}
	return "/root"
}

// uid is who works there, as whom commands run and to whom files belong.
func (b *Builder) uid() int {
	if b.opts.Plain {
		return workerUID
	}
	return 0
}

// WriteFile writes a file of the builder; it and the folders made above it belong to who works there.
func (b *Builder) WriteFile(name string, data []byte, mode fs.FileMode) error {
	if err := b.makeDirs(filepath.Dir(filepath.Clean("/" + name))); err != nil {
		return err
	}
	if err := WriteProgram(b.Path(name), data, mode); err != nil {
		return err
	}
	return os.Chown(b.Path(name), b.uid(), b.uid())
}

// WriteProgram is os.WriteFile for what is to be started at once. A process that another goroutine starts meanwhile would have the
// file open for writing until it is somebody else, and as long as that is so the kernel starts no program from it ("text file busy").
func WriteProgram(file string, data []byte, mode fs.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(file, data, mode)
}

// makeDirs makes a folder and those above it, as whoever works there would.
func (b *Builder) makeDirs(name string) error {
	if isDir(b.Path(name)) {
		return nil
	}
	if err := b.makeDirs(filepath.Dir(name)); err != nil {
		return err
	}
	if err := os.Mkdir(b.Path(name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chown(b.Path(name), b.uid(), b.uid())
}

// Install copies a program of this machine into the builder's /usr/local/bin. It must be static, or made for the
// builder's release.
func (b *Builder) Install(program string) error {
	return quietly(exec.Command("install", "-m", "755", "--", program, b.Path(filepath.Join("usr/local/bin", filepath.Base(program)))))
}

// CopyTree copies a folder of this machine to a folder that must not exist on the builder; it belongs to who works there.
func (b *Builder) CopyTree(from, to string) error {
	if err := b.makeDirs(filepath.Dir(filepath.Clean("/" + to))); err != nil {
		return err
	}
	if err := quietly(exec.Command("cp", "-R", "--no-dereference", "--preserve=mode,links", "--no-target-directory", "--",
		from, b.Path(to))); err != nil {
		return err
	}
	return filepath.WalkDir(b.Path(to), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, b.uid(), b.uid()))
	})
}

// Command is a command to be run on the builder by who works there, in their home, with an environment of nothing but
// PATH, HOME, USER and a locale: append to Env. The end of ctx kills it, not what it has started.
func (b *Builder) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// Nix goes back to its mount namespace's root before it starts ssh, so a chroot is not enough: the builder's root has to
	// be the root of a namespace. env looks for name in the builder's PATH; exec would do so in this machine's.
	const enter = `cd "$0" && pivot_root . . && umount -l . && cd "$1" && shift && exec "$@"`
	argv := []string{"-c", enter, b.Path("/"), b.Home()}
	if b.opts.Plain {
		id := strconv.Itoa(workerUID)
		argv = append(argv, "setpriv", "--reuid="+id, "--regid="+id, "--clear-groups", "--")
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append(append(argv, "/usr/bin/env", "--", name), args...)...)
	cmd.Env = []string{"PATH=" + hostPath, "HOME=" + b.Home(), "USER=" + filepath.Base(b.Home()), "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Output runs a command as Command does and returns its standard output. The error of a command that fails has the end
// of its standard error.
func (b *Builder) Output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := b.Command(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLines(stderr.String(), 20))
	}
	return out, nil
}

// Know makes targets known to the builder's ssh, by name, with their host keys; the user is for whoever connects to say.
func (b *Builder) Know(targets ...*Target) error {
	for _, t := range targets {
		if err := b.know(t.Name(), netip.AddrPortFrom(t.Addr(), 22), t); err != nil {
			return err
		}
	}
	return nil
}

// KnowThrough makes the target behind a relay known to the builder's ssh under a name that no other has there.
func (b *Builder) KnowThrough(name string, relay *Relay, t *Target) error {
	return b.know(name, relay.Addr(), t)
}

func (b *Builder) know(name string, addr netip.AddrPort, t *Target) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.append(".ssh/known_hosts", t.KnownHost()+"\n"); err != nil {
		return err
	}
	return b.append(".ssh/config", fmt.Sprintf("\nHost %s\n  HostName %s\n  Port %d\n  HostKeyAlias %s\n",
		name, addr.Addr(), addr.Port(), t.Name()))
}

// Forget makes the builder's ssh know no target any more.
func (b *Builder) Forget() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(
		b.WriteFile(filepath.Join(b.Home(), ".ssh/known_hosts"), nil, 0o600),
		b.WriteFile(filepath.Join(b.Home(), ".ssh/config"), []byte(builderSSHConfig), 0o600),
	)
}

// append adds text to a file in the home of who works there.
func (b *Builder) append(name, text string) error {
	name = filepath.Join(b.Home(), name)
	if err := b.makeDirs(filepath.Dir(name)); err != nil {
		return err
	}
	file, err := os.OpenFile(b.Path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// In one write: an ssh that reads the file at this moment sees all lines that were there.
	_, err = file.WriteString(text)
	return errors.Join(err, file.Chown(b.uid(), b.uid()), file.Close())
}
