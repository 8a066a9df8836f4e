package bootloader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"

	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// Loader is one that can boot an entry of its menu once, and another one by default.
type Loader interface {
	// Name is what facts call it.
	Name() string
	// Entry is what it calls the entry that boots a toplevel.
	Entry(toplevel string) (string, error)
	// Boots is the toplevel that it boots by default.
	Boots() (string, error)
	// Once makes it boot an entry at the next boot only; an empty one takes that back.
	Once(ctx context.Context, runner *run.Runner, entry string, log io.Writer) error
}

// SystemdBoot is how systemd-boot is called.
const SystemdBoot = "systemd-boot"

// OneShotSystemd is the first systemd whose bootctl has set-oneshot.
const OneShotSystemd = 242

// Find are the boot loaders of this machine that may be able to boot an entry once. It is usually one or none; there
// are two where one of them was used before, and where nothing says which. Only files are looked at.
func Find(r machine.Root) []Loader {
	byFirmware, info := loaderInfo(r)
	systemd := strings.HasPrefix(info, "systemd-boot") || strings.HasPrefix(info, "gummiboot")
	var found []Loader
	if l := (systemdBoot{r}); (systemd || !byFirmware) && l.installed() {
		found = append(found, l)
	}
	if l := (grub{r}); !systemd && l.installed() {
		found = append(found, l)
	}
	return found
}

// All are the boot loaders that are known, whether they are there or not.
func All(r machine.Root) []Loader { return []Loader{systemdBoot{r}, grub{r}} }

// FindName names the boot loader that can boot an entry once, or is "".
func FindName(r machine.Root) string {
	if found := Find(r); len(found) > 0 {
		return found[0].Name()
	}
	return ""
}

const (
	efiVariables = "/sys/firmware/efi/efivars"
	// loaderVendor is whose EFI variables those of the boot loader interface are.
	loaderVendor = "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
)

// loaderInfo is what the boot loader says it is. It is known to be another one than systemd-boot when there are EFI
// variables and that one is not among them.
func loaderInfo(r machine.Root) (byFirmware bool, info string) {
	entries, err := os.ReadDir(r.Path(efiVariables))
	if err != nil || len(entries) == 0 {
		return false, ""
	}
	return true, efiVariable(r, "LoaderInfo")
}

// efiVariable is the text of a variable of the boot loader interface, or "".
func efiVariable(r machine.Root, name string) string {
	data, err := os.ReadFile(r.Path(filepath.Join(efiVariables, name+loaderVendor)))
	if err != nil || len(data) < 4 {
		return ""
	}
	// Four bytes of attributes come first.
	var units []uint16
	for data = data[4:]; len(data) >= 2; data = data[2:] {
		unit := binary.LittleEndian.Uint16(data)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units))
}

// inPath tells whether all of these programs are there.
func inPath(programs ...string) bool {
	folders := filepath.SplitList(os.Getenv("PATH"))
	return !slices.ContainsFunc(programs, func(p string) bool {
		return !slices.ContainsFunc(folders, func(folder string) bool {
			info, err := os.Stat(filepath.Join(folder, p))
			return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
		})
	})
}

// systemdBoot is systemd-boot with the menu that NixOS writes for it: loader/loader.conf on the EFI system partition, and
// loader/entries/nixos-*generation-N.conf there or on the extended boot partition.
type systemdBoot struct{ r machine.Root }

func (systemdBoot) Name() string { return SystemdBoot }

// Partitions are the folders that may be one of systemd-boot's two partitions.
func Partitions(r machine.Root) []string { return systemdBoot{r}.partitions() }

// partitions are the folders that may be one of the two partitions.
func (l systemdBoot) partitions() []string {
	folders := []string{"/boot", "/efi", "/boot/efi"}
	for m, point := range l.r.Mounts() {
		if m.Kind == "vfat" && !slices.Contains(folders, point) {
			folders = append(folders, point)
		}
	}
	return folders
}

func (l systemdBoot) installed() bool {
	return inPath("bootctl") && l.configuration() != "" && len(l.entries("nixos*-generation-*.conf")) > 0
}

// configuration is the text of loader.conf.
func (l systemdBoot) configuration() string {
	for _, folder := range l.partitions() {
		if text, err := os.ReadFile(l.r.Path(folder + "/loader/loader.conf")); err == nil {
			return string(text)
		}
	}
	return ""
}

// entries are the files of entries whose names match a pattern.
func (l systemdBoot) entries(pattern string) []string {
	var files []string
	for _, folder := range l.partitions() {
		// The pattern is well formed.
		found, _ := filepath.Glob(l.r.Path(folder + "/loader/entries/" + pattern))
		files = append(files, found...)
	}
	return files
}

// Entry looks for the system itself and not for a name: how entries are named has changed, and a specialisation's name
// begins like its system's.
func (l systemdBoot) Entry(toplevel string) (string, error) {
	for _, file := range l.entries("*.conf") {
		if initOf(readText(file)) == toplevel {
			return l.id(filepath.Base(file)), nil
		}
	}
	return "", errors.New("systemd-boot has no entry for it")
}

// id is what the boot loader calls the entry of a file: older ones leave .conf out. It shows in what it says it has booted.
func (l systemdBoot) id(file string) string {
	booted := strings.ToLower(efiVariable(l.r, "LoaderEntrySelected"))
	if strings.HasPrefix(booted, "nixos-") && !strings.HasSuffix(booted, ".conf") {
		return strings.TrimSuffix(file, ".conf")
	}
	return file
}

func (l systemdBoot) Boots() (string, error) {
	wanted := efiVariable(l.r, "LoaderEntryDefault")
	for line := range strings.Lines(l.configuration()) {
		if f := strings.Fields(line); wanted == "" && len(f) == 2 && f[0] == "default" {
			wanted = f[1]
		}
	}
	for _, file := range l.entries("*.conf") {
		if name := filepath.Base(file); strings.EqualFold(name, wanted) || strings.EqualFold(name, wanted+".conf") {
			return initOf(readText(file)), nil
		}
	}
	return "", fmt.Errorf("systemd-boot's default entry %q is not there", wanted)
}

func (systemdBoot) Once(ctx context.Context, runner *run.Runner, entry string, log io.Writer) error {
	return runner.Run(ctx, run.Command{Argv: []string{"bootctl", "set-oneshot", entry}, Out: log, Err: log})
}

func readText(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return string(text)
}

// initOf is the toplevel whose init a kernel command line somewhere in text starts.
func initOf(text string) string {
	for _, word := range strings.Fields(text) {
		if p, found := strings.CutPrefix(word, "init="); found && path.Base(p) == "init" {
			return path.Dir(p)
		}
	}
	return ""
}

const (
	grubConfig      = "/boot/grub/grub.cfg"
	grubEnvironment = "/boot/grub/grubenv"
)

// grub is GRUB 2 with the menu that NixOS writes for it: its default entry, and submenus of all generations of the profiles.
type grub struct{ r machine.Root }

func (grub) Name() string { return "grub" }

// installed also tells that GRUB forgets the entry when it has booted it: what it cannot write to would boot it for ever.
func (l grub) installed() bool {
	text := readText(l.r.Path(grubConfig))
	if !strings.Contains(text, "load_env") || !strings.Contains(text, "save_env next_entry") || !inPath("grub-reboot", "grub-editenv") {
		return false
	}
	on := l.r.MountOf(grubEnvironment)
	for _, device := range []string{"/dev/mapper/", "/dev/dm-", "/dev/md"} {
		if strings.HasPrefix(on.Source, device) {
			return false
		}
	}
	return !slices.Contains([]string{"btrfs", "zfs", "bcachefs", "nilfs2"}, on.Kind)
}

func (l grub) Entry(toplevel string) (string, error) {
	menu := readGrubMenu(readText(l.r.Path(grubConfig)))
	// The default entry, above the submenus, may be for the same system, but is for another one after the next switch.
	for _, e := range slices.Backward(menu.entries) {
		if e.toplevel != toplevel {
			continue
		}
		if menu.superusers && !e.unrestricted {
			return "", errors.New("GRUB asks for a password before it boots that entry")
		}
		return e.path, nil
	}
	return "", errors.New("GRUB has no entry for it")
}

func (l grub) Boots() (string, error) {
	menu := readGrubMenu(readText(l.r.Path(grubConfig)))
	for _, e := range menu.entries {
		if e.path == menu.byDefault || e.number == menu.byDefault {
			return e.toplevel, nil
		}
	}
	return "", fmt.Errorf("GRUB's default entry %q is none that its menu names", menu.byDefault)
}

func (l grub) Once(ctx context.Context, runner *run.Runner, entry string, log io.Writer) error {
	argv := []string{"grub-reboot", entry}
	if entry == "" {
		argv = []string{"grub-editenv", l.r.Path(grubEnvironment), "unset", "next_entry"}
	}
	return runner.Run(ctx, run.Command{Argv: argv, Out: log, Err: log})
}
