package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what a target machine is like. The zero value is a NixOS-like x86_64 machine of bookworm.
type Options struct {
	// Suite is the Debian release under it: "bookworm" (Nix 2.8, systemd 252; the default), "trixie" (2.26, 257), "sid".
	Suite string
	// System is what its Nix and its uname call it: "x86_64-linux" (the default) or "aarch64-linux". It is native
	// underneath; aarch64 programs are emulated.
	System string
	// NoSystemd gives a machine with sshd and nix-daemon only, for what is asked of it over ssh.
	NoSystemd bool
	// DebianDaemon lets only group nix-users, which is empty, talk to the Nix daemon, as Debian does. Else any user may, as on NixOS.
	DebianDaemon bool
	// NotNixOS leaves out what marks a machine as NixOS.
	NotNixOS bool
	// StoreLimit, if not 0, is the size in bytes of the file system that /nix is on.
	StoreLimit int64
	// Disk gives it disks, for its root and for /boot, and for /nix if that is limited, that lose with the power what was not brought to them (fsync, sync). Else
	// a power cut loses nothing that was written.
	Disk bool
	// Memory, if not 0, is its memory in bytes. It is only right where the lab's scratch folder is on a disk.
	Memory int64
}

// Target is a running machine. Its methods may be called from several goroutines.
type Target struct {
	opts Options
	name string
	dir  string // everything on disk
	link *link
	run  run
	// disks are nil unless the options ask for them.
	disks *disks
	// hostKey is its public key as a known_hosts line wants it.
	hostKey string

	mu sync.Mutex
	on *power // nil while it is off
}

// Start makes a target machine, boots it and waits until it answers ssh and has finished booting; ctx bounds only that. Call
// Stop when done; what a lab has not stopped ends with the lab.
func Start(ctx context.Context, opts Options) (*Target, error) {
	r, err := current()
	if err != nil {
		return nil, err
	}
	if opts.Suite == "" {
		opts.Suite = "bookworm"
	}
	if opts.System == "" {
		opts.System = nativeSystem
	}
	t, err := r.newTarget(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	if err := t.PowerOn(ctx); err != nil {
		return nil, errors.Join(err, t.Stop())
	}
	return t, nil
}

// StartTarget is Start for a test: it fails the test if the machine does not come up, and stops it when the test ends.
func StartTarget(tb testing.TB, opts Options) *Target {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	t, err := Start(ctx, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := t.Stop(); err != nil {
			tb.Errorf("stop %s: %v", t.Name(), err)
		}
	})
	return t
}

// maxTargets is how many networks fit the address plan (see newLink).
const maxTargets = 250

// newTarget makes everything a machine consists of while it is off.
func (r run) newTarget(ctx context.Context, opts Options) (_ *Target, err error) {
	dir, n, err := r.claim("targets", maxTargets)
	if err != nil {
		return nil, err
	}
	t := &Target{opts: opts, name: fmt.Sprintf("target%d", n), dir: dir, run: r}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.remove())
		}
	}()
	base, err := Base(ctx, opts.Suite)
	if err != nil {
		return nil, err
	}
	if opts.Disk {
		t.disks, err = newDisks(base, dir)
	} else {
		err = mountOverlay(base, dir)
	}
	if err != nil {
		return nil, err
	}
	if opts.StoreLimit > 0 {
		if err := t.limitStore(); err != nil {
			return nil, err
		}
	}
	if t.link, err = newLink(ctx, n); err != nil {
		return nil, err
	}
	if err := t.furnish(); err != nil {
		return nil, err
	}
	return t, t.Sync()
}

// mountOverlay mounts dir/root: base below, dir/upper above.
func mountOverlay(base, dir string) error {
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	// Nothing here outlives the run, so writing it through to the disk would only cost time.
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,volatile", base, dir, dir)
	if err := unix.Mount("overlay", filepath.Join(dir, "root"), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay (%s): %w", options, err)
	}
	return nil
}

// limitStore puts /nix on a file system of its own, of as many bytes as the options say.
func (t *Target) limitStore() error {
	nix := filepath.Join(t.Root(), "nix")
	saved := filepath.Join(t.Root(), "nix.base")
	if err := os.CopyFS(saved, os.DirFS(nix)); err != nil {
		return err
	}
	if t.disks != nil {
		if err := t.disks.add(nix, t.opts.StoreLimit); err != nil {
			return err
		}
	} else if err := unix.Mount("tmpfs", nix, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", t.opts.StoreLimit)); err != nil {
		return fmt.Errorf("mount %s: %w", nix, err)
	}
	return errors.Join(os.CopyFS(nix, os.DirFS(saved)), os.RemoveAll(saved))
}

// Name is the machine's name, which is its host name and its name in a builder's ssh configuration.
func (t *Target) Name() string { return t.name }

// Addr is its address in the lab's network.
func (t *Target) Addr() netip.Addr { return t.link.addr }

// Gateway is the lab's end of its cable: the address from which builders and tests come to it.
func (t *Target) Gateway() netip.Addr { return t.link.gateway }

// System is what its Nix calls it, as "x86_64-linux".
func (t *Target) System() string { return t.opts.System }

// Root is where its root file system is, seen from the test. What the machine mounts itself, as /run and /tmp, is not in it.
func (t *Target) Root() string { return filepath.Join(t.dir, "root") }

// KnownHost is the line for ssh's known_hosts by which it is recognised, under its name and its address.
func (t *Target) KnownHost() string { return t.name + "," + t.Addr().String() + " " + t.hostKey }

// PowerOn boots a machine that is off, and waits until it answers ssh and has finished booting: whether well or with
// failed units is for the caller to ask.
func (t *Target) PowerOn(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.on != nil && t.on.running() {
		return fmt.Errorf("%s: is already on", t.name)
	}
	on, err := t.startPower()
	if err != nil {
		return fmt.Errorf("%s: power on: %w", t.name, err)
	}
	t.on = on
	if err := t.waitBooted(ctx, on); err != nil {
		return fmt.Errorf("%s: boot: %w\n%s", t.name, err, t.consoleTail())
	}
	return nil
}

// Kill is a power cut: the machine is gone from one moment to the next. Its disk stays as it was, but for what Options.Disk
// says.
func (t *Target) Kill() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.on == nil {
		return nil
	}
	err := t.on.cut()
	t.on = nil
	if err == nil && t.disks != nil {
		err = t.disks.lose()
	}
	return errors.Join(err, t.link.reset())
}

// Sync brings everything that is written to the machine's disks, as an orderly shutdown does.
func (t *Target) Sync() error {
	if t.disks == nil {
		return nil
	}
	if err := t.disks.sync(); err != nil {
		return fmt.Errorf("%s: sync: %w", t.name, err)
	}
	return nil
}

// WaitReboot waits until a machine that is about to reboot, or has been told to, is up again: its boot is another one
// than since, which is what Boots returned before.
func (t *Target) WaitReboot(ctx context.Context, since int) error {
	on := t.current()
	if on == nil {
		return fmt.Errorf("%s: is off", t.name)
	}
	for on.boots() <= since {
		if !on.running() {
			return fmt.Errorf("%s: went off instead of rebooting\n%s", t.name, t.consoleTail())
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%s: reboot: %w", t.name, err)
		}
	}
	if err := t.waitBooted(ctx, on); err != nil {
		return fmt.Errorf("%s: reboot: %w\n%s", t.name, err, t.consoleTail())
	}
	return nil
}

// Boots counts how often it has booted since it was last powered on; it is 0 while it is off.
func (t *Target) Boots() int {
	if on := t.current(); on != nil {
		return on.boots()
	}
	return 0
}

func (t *Target) current() *power {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.on
}

// Stop ends the machine and removes all of it.
func (t *Target) Stop() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if t.on != nil {
		err = t.on.cut()
		t.on = nil
	}
	return errors.Join(err, t.remove())
}

// remove removes what newTarget made, or has begun to make.
func (t *Target) remove() error {
	var errs []error
	if t.link != nil {
		errs = append(errs, t.link.close())
	}
	var mounts []string
	if t.disks == nil {
		mounts = []string{filepath.Join(t.Root(), "nix"), t.Root()}
	}
	for _, mount := range mounts {
		err := unix.Unmount(mount, unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", mount, err))
		}
	}
	if t.disks != nil {
		errs = append(errs, t.disks.remove(t.dir))
	}
	return errors.Join(append(errs, os.RemoveAll(t.dir))...)
}

// LinkDown pulls the machine's network cable: from both sides the other falls silent. Nothing that the machine does, a
// reboot included, plugs it in again.
func (t *Target) LinkDown(ctx context.Context) error { return t.link.plug(ctx, false) }

// LinkUp plugs it in again.
func (t *Target) LinkUp(ctx context.Context) error { return t.link.plug(ctx, true) }

// Bandwidth limits what passes the cable, in bits per second in each direction; 0 means no limit.
func (t *Target) Bandwidth(ctx context.Context, bits int64) error { return t.link.limit(ctx, bits) }

// waitBooted waits for sshd's greeting and then for the end of the boot.
func (t *Target) waitBooted(ctx context.Context, on *power) error {
	for {
		if t.greets(ctx) {
			break
		}
		if !on.running() {
			return errors.New("the machine went off")
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("no answer on %s port 22: %w", t.Addr(), err)
		}
	}
	if t.opts.NoSystemd {
		return nil
	}
	// Its status says whether all units are well, which is not the question.
	_ = t.commandIn(ctx, on, "systemctl", "is-system-running", "--wait").Run()
	return ctx.Err()
}

// greets says whether sshd answers.
func (t *Target) greets(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(t.Addr().String(), "22"))
	if err != nil {
		return false
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return false
		}
	}
	greeting := make([]byte, 4)
	n, _ := conn.Read(greeting)
	return string(greeting[:n]) == "SSH-"
}

// consoleTail is the end of what it last wrote to its console.
func (t *Target) consoleTail() string {
	text, err := os.ReadFile(t.consoleFile())
	if err != nil {
		return err.Error()
	}
	return lastLines(strings.ReplaceAll(string(text), "\r", ""), 15)
}

func (t *Target) consoleFile() string { return filepath.Join(t.dir, "console.log") }
