package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a file system of a machine that loses with the power what was not brought to it, as a real one does: ext4 on a loop
// device whose file is memory. The kernel's own way to end a file system without writing its journal (EXT4_IOC_SHUTDOWN, which
// the tests of file systems use) is the power cut; what the next mount finds is what the journal and the device have.
//
// It keeps back as much as it may: a transaction is not written before somebody asks for it, and a file that replaces another
// is not written sooner for that. Data reaches the device by itself when it is some 30 seconds old, but the names and sizes
// of files do not.
type disk struct {
	place  string   // where it is mounted
	memory *os.File // the file of the device
	device *os.File
}

const (
	// diskSize is more than any machine of the lab fills, in bytes. What is not written takes no memory.
	diskSize = 8 << 30
	// bigDisk has room for a journal of 16 MiB; a smaller one gets the smallest that there is.
	bigDisk = 1 << 30
	// diskOptions keep everything in memory until somebody syncs.
	diskOptions = "commit=86400,noauto_da_alloc,noinit_itable"
	// goDown is EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, from linux/ext4.h.
	goDown             = 0x8004587d
	goDownWithoutFlush = 2
)

// newDisk makes an empty file system of size bytes and mounts it at place, a folder that is there. The caller must remove it.
func newDisk(place string, size int64) (_ *disk, err error) {
	d := &disk{place: place}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("disk for %s: %w", place, err), d.remove())
		}
	}()
	fd, err := unix.MemfdCreate("ferry-lab-disk", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	d.memory = os.NewFile(uintptr(fd), "ferry-lab-disk")
	if err := d.memory.Truncate(size); err != nil {
		return nil, err
	}
	if d.device, err = attachLoop(d.memory); err != nil {
		return nil, err
	}
	journal := "size=4"
	if size >= bigDisk {
		journal = "size=16"
	}
	mkfs := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-J", journal, "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", d.device.Name())
	mkfs.Env = []string{"PATH=" + hostPath}
	if err := quietly(mkfs); err != nil {
		return nil, err
	}
	return d, d.mount()
}

// attachLoop makes a loop device of a file: it is there until it is closed and not mounted any more.
func attachLoop(file *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	// Somebody else may be quicker with the one that is free.
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", control.Name(), err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		if err = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err == nil {
			err = unix.IoctlLoopSetStatus64(int(device.Fd()), &unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR})
		}
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%s: %w", device.Name(), err)
		}
	}
	return nil, errors.New("no loop device is free")
}

func (d *disk) mount() error {
	if err := unix.Mount(d.device.Name(), d.place, "ext4", 0, diskOptions); err != nil {
		return fmt.Errorf("mount %s: %w", d.device.Name(), err)
	}
	return nil
}

// sync brings everything to the device.
func (d *disk) sync() error {
	folder, err := os.Open(d.place)
	if err != nil {
		return err
	}
	defer folder.Close()
	return unix.Syncfs(int(folder.Fd()))
}

// cut is the end of the power: from now on nothing reaches the device.
func (d *disk) cut() error {
	folder, err := os.Open(d.place)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := unix.IoctlSetPointerInt(int(folder.Fd()), goDown, goDownWithoutFlush); err != nil {
		return fmt.Errorf("%s: shut down: %w", d.place, err)
	}
	return nil
}

// renew gives the file system another device, with what the old one has, so that the next mount is a new one: a mount namespace of
// somebody else's may hold the one that was cut for long, and with its device it would be the same again.
func (d *disk) renew() error {
	old := d.device
	// Nothing of it may come later. As the file system is cut, this is what its journal has anyway.
	if err := old.Sync(); err != nil {
		return err
	}
	next, err := attachLoop(d.memory)
	if err != nil {
		return err
	}
	d.device = next
	return old.Close()
}

// unmounted unmounts what is mounted at a place, when nobody uses it any more.
func unmounted(place string) error {
	if err := withinLimit(unix.EBUSY, func() error { return unix.Unmount(place, 0) }); err != nil {
		return fmt.Errorf("unmount %s: %w", place, err)
	}
	return nil
}

// withinLimit does something again until it does not fail so any more.
func withinLimit(again error, do func() error) error {
	end := time.Now().Add(processLimit)
	for {
		err := do()
		if !errors.Is(err, again) || time.Now().After(end) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// remove removes what there is of it.
func (d *disk) remove() error {
	err := unix.Unmount(d.place, unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	for _, file := range []*os.File{d.device, d.memory} {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
	}
	return err
}

// disks are the file systems of a machine whose Options say so: the one of its root, the one of /boot, and the one of /nix if its
// size is limited.
type disks struct {
	root *disk
	// below are those that are mounted in the machine's root.
	below []*disk
	// overlay mounts the machine's root again.
	overlay func() error
}

// newDisks mounts a machine's root, base below, as far as it is written to on a disk of its own.
func newDisks(base, dir string) (_ *disks, err error) {
	d := new(disks)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.remove(dir))
		}
	}()
	place, root := filepath.Join(dir, "disk"), filepath.Join(dir, "root")
	if err := errors.Join(os.Mkdir(place, 0o755), os.Mkdir(root, 0o755)); err != nil {
		return nil, err
	}
	if d.root, err = newDisk(place, diskSize); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Mkdir(filepath.Join(place, "upper"), 0o755), os.Mkdir(filepath.Join(place, "work"), 0o755)); err != nil {
		return nil, err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", base, place, place)
	d.overlay = func() error {
		if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
			return fmt.Errorf("mount overlay (%s): %w", options, err)
		}
		return nil
	}
	if err := d.overlay(); err != nil {
		return nil, err
	}
	boot := filepath.Join(root, "boot")
	if err := os.MkdirAll(boot, 0o755); err != nil {
		return nil, err
	}
	return d, d.add(boot, diskSize)
}

// add puts a folder of the machine's root on a disk of its own, with nothing on it.
func (d *disks) add(place string, size int64) error {
	more, err := newDisk(place, size)
	if err != nil {
		return err
	}
	d.below = append(d.below, more)
	// What mkfs has made, no boot loader and no Nix has.
	return os.Remove(filepath.Join(place, "lost+found"))
}

// each does something with all of them, those below first.
func (d *disks) each(do func(*disk) error) error {
	for _, one := range append(slices.Clone(d.below), d.root) {
		if err := do(one); err != nil {
			return err
		}
	}
	return nil
}

func (d *disks) sync() error { return d.each((*disk).sync) }

// lose makes the disks what a power cut leaves of them. The machine is off.
func (d *disks) lose() error {
	if err := d.each((*disk).cut); err != nil {
		return err
	}
	var places []string
	for _, one := range d.below {
		places = append(places, one.place)
	}
	for _, place := range append(places, filepath.Dir(places[0]), d.root.place) {
		if err := unmounted(place); err != nil {
			return err
		}
	}
	if err := d.each((*disk).renew); err != nil {
		return err
	}
	for _, step := range []func() error{d.root.mount, d.overlay} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, one := range d.below {
		if err := one.mount(); err != nil {
			return err
		}
	}
	return nil
}

// remove removes what there is of them; the machine's root is unmounted with them.
func (d *disks) remove(dir string) error {
	var errs []error
	for _, one := range d.below {
		errs = append(errs, one.remove())
	}
	if err := unix.Unmount(filepath.Join(dir, "root"), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, err)
	}
	if d.root != nil {
		errs = append(errs, d.root.remove())
	}
	return errors.Join(errs...)
}

// LossyDisk is a file system for a test of its own, that loses in a power cut what was not brought to it.
type LossyDisk struct {
	// Folder is where it is mounted.
	Folder string
	disk   *disk
}

// StartDisk makes an empty one. It is gone when the test ends.
func StartDisk(tb testing.TB) *LossyDisk {
	tb.Helper()
	d, err := newDisk(tb.TempDir(), diskSize)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.remove(); err != nil {
			tb.Error(err)
		}
	})
	return &LossyDisk{d.place, d}
}

// PowerCut makes the file system what a power cut leaves of it. No file of it may be open.
func (d *LossyDisk) PowerCut() error {
	if err := d.disk.cut(); err != nil {
		return err
	}
	if err := unmounted(d.Folder); err != nil {
		return err
	}
	if err := d.disk.renew(); err != nil {
		return err
	}
	return d.disk.mount()
}
