// Package compare tells how two NixOS systems differ, by what this machine's store has of them: packages, units, files in /etc,
// accounts, mounts, and what a reboot brings.
package compare

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// System is how two systems differ in what a switch does.
type System struct {
	Units  Units `json:"units"`
	Etc    Names `json:"etc"`    // files below /etc, but for units
	Users  Names `json:"users"`  // by name; changed: their groups, shell or the like
	Groups Names `json:"groups"` // by name; changed: their members or number
	// Mounts are those of fstab, by mount point, and swaps as "swap DEVICE".
	Mounts Names `json:"mounts"`
	// Swapoff are devices that are not swapped to any more, before anything else.
	Swapoff []string `json:"swapoff"`
	// UserUnits are units of users' own service managers, and UserActions what is done to them where a user is logged in and they run.
	UserUnits   Names `json:"user_units"`
	UserActions Units `json:"user_unit_actions"`
	// Reexec says that systemd starts itself anew.
	Reexec bool `json:"reexec"`
	// Boot names what only the next boot brings: kernel, initrd, kernel modules, kernel parameters, another root file system.
	Boot []string `json:"boot"`
	// Program is the one that switches, in the system that comes, or the one that it is most like, if MayDiffer is not empty: that
	// says what else may happen.
	Program   Program  `json:"program"`
	MayDiffer []string `json:"may_differ"`
	// Refused says why that program ends before it does anything; "": it does not. Then nothing is known of units.
	Refused string `json:"refused"`
	// Problems are what of all that cannot go well.
	Problems []string `json:"problems"`
}

// Names are things that come, go and change, sorted.
type Names struct {
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
	Changed []string `json:"changed"`
}

// Empty tells whether there is none.
func (n Names) Empty() bool { return len(n.Added)+len(n.Removed)+len(n.Changed) == 0 }

// Systems compares two toplevels. running is what runs of the first one; nil: it is judged by what the system starts. booted is the
// toplevel that was booted, whose kernel runs; "": the first one.
func Systems(before, after, booted string, running *Running) (System, error) {
	for _, toplevel := range []string{before, after} {
		if !exists(toplevel + "/etc") {
			return System{}, fmt.Errorf("%s is no NixOS system that is here: it has no etc", toplevel)
		}
	}
	if booted == "" || !exists(booted+"/etc") {
		booted = before
	}
	programs := programsOf(after)
	s := foretell(programs[0], before, after, running)
	s.MayDiffer = []string{}
	for _, program := range programs[1:] {
		for _, text := range s.otherThan(foretell(program, before, after, running)) {
			if !slices.Contains(s.MayDiffer, text) {
				s.MayDiffer = append(s.MayDiffer, text)
			}
		}
	}
	s.Boot = append(compareBoot(booted, after), bootMounts(booted, after)...)
	s.Mounts, s.UserUnits = compareMounts(before, after), compareUserUnits(before, after)
	s.Etc = compareMaps(etcFiles(before), etcFiles(after), func(a, b string) bool { return a == b || sameFile(a, b) })
	was, is := readAccounts(before), readAccounts(after)
	equal := func(a, b string) bool { return a == b }
	s.Users = compareMaps(was.byName(was.Users), is.byName(is.Users), equal)
	s.Groups = compareMaps(was.byName(was.Groups), is.byName(is.Groups), equal)
	return s, nil
}

// foretell says what a switch program does.
func foretell(program Program, before, after string, running *Running) System {
	const folder = "/etc/systemd/system"
	s := System{Program: program, Units: noUnits(), Swapoff: []string{}, Problems: []string{}}
	s.Reexec, s.UserActions = needsReexec(program, before, after), switchUsers(program, before, after)
	c := newComparison(program, before+folder, after+folder, folder, running)
	if err := c.decide(); err != nil {
		s.Refused = err.Error()
		return s
	}
	s.Swapoff = c.mounts(before, after)
	s.Units, s.Problems = c.result(), c.problems
	return s
}

// otherThan says what would be done otherwise by another program.
func (s System) otherThan(other System) []string {
	if s.Refused != other.Refused {
		return []string{"whether the switch is done at all"}
	}
	var texts []string
	for _, part := range []struct {
		kind     string
		one, two Units
	}{{"", s.Units, other.Units}, {"users' ", s.UserActions, other.UserActions}} {
		ours, theirs := part.one.Done(), part.two.Done()
		all := set{}
		for unit := range ours {
			all[unit] = true
		}
		for unit := range theirs {
			all[unit] = true
		}
		for _, unit := range all.sorted() {
			if ours[unit] != theirs[unit] {
				texts = append(texts, part.kind+unit+" "+cmp.Or(theirs[unit], "left as it is"))
			}
		}
	}
	if s.Reexec != other.Reexec {
		texts = append(texts, "whether systemd starts itself anew")
	}
	return texts
}

func compareMaps(before, after map[string]string, same func(a, b string) bool) Names {
	n := Names{[]string{}, []string{}, []string{}}
	for name, was := range before {
		is, both := after[name]
		switch {
		case !both:
			n.Removed = append(n.Removed, name)
		case !same(was, is):
			n.Changed = append(n.Changed, name)
		}
	}
	for name := range after {
		if _, both := before[name]; !both {
			n.Added = append(n.Added, name)
		}
	}
	for _, list := range [][]string{n.Added, n.Removed, n.Changed} {
		slices.Sort(list)
	}
	return n
}

// compareBoot compares what takes effect at a boot only.
func compareBoot(before, after string) []string {
	changed := []string{}
	for _, part := range []struct{ file, word string }{
		{"kernel", "kernel"}, {"initrd", "initrd"}, {"kernel-modules", "kernel modules"}, {"kernel-params", "kernel parameters"},
	} {
		was, is := bootPart(before+"/"+part.file), bootPart(after+"/"+part.file)
		if was == is {
			continue
		}
		word := part.word
		// The version is part of the store path's name.
		if a, b := kernelVersion(was), kernelVersion(is); part.file == "kernel" && a != "" && b != "" && a != b {
			word += fmt.Sprintf(" (%s to %s)", a, b)
		}
		changed = append(changed, word)
	}
	return changed
}

// bootPart is where a link leads, or what a file says.
func bootPart(path string) string {
	if to, err := os.Readlink(path); err == nil {
		return to
	}
	text, _ := readSome(path)
	return strings.TrimSpace(text)
}

func kernelVersion(path string) string {
	rest, found := strings.CutPrefix(path, "/nix/store/")
	if base, _, _ := strings.Cut(rest, "/"); found && len(base) > 33 {
		_, version := SplitName(base[33:])
		return version
	}
	return ""
}

// maxEtc is how many files of /etc are looked at.
const maxEtc = 20000

// etcFiles gives what a system puts below /etc, by name, with the place in the store that it has it from. Units are not among
// it, nor what only says how a file is copied.
func etcFiles(toplevel string) map[string]string {
	files := map[string]string{}
	root, err := filepath.EvalSymlinks(toplevel + "/etc")
	if err != nil {
		return files
	}
	_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || len(files) >= maxEtc {
			return filepath.SkipDir
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		if name == "systemd/system" || name == "systemd/user" {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.IsDir() {
			files[name] = path
		}
		return nil
	})
	for name := range files {
		for _, suffix := range []string{".mode", ".uid", ".gid"} {
			delete(files, name+suffix)
		}
	}
	return files
}

// sameFile tells whether two files of /etc are the same for whoever reads them.
func sameFile(a, b string) bool {
	x, errX := filepath.EvalSymlinks(a)
	y, errY := filepath.EvalSymlinks(b)
	if errX != nil || errY != nil {
		// A link out of the store, such as to /proc, leads nowhere here.
		to, err := os.Readlink(a)
		other, errOther := os.Readlink(b)
		return err == nil && errOther == nil && to == other
	}
	if x == y {
		return true
	}
	textX, errX := readSome(x)
	textY, errY := readSome(y)
	return errX == nil && errY == nil && textX == textY
}

// accounts are the users and groups that a system declares.
type accounts struct {
	Users  []json.RawMessage `json:"users"`
	Groups []json.RawMessage `json:"groups"`
}

// readAccounts reads the file that the activation, or userborn, makes them from.
func readAccounts(toplevel string) accounts {
	pattern := regexp.MustCompile(`/[^\s"'=]*-(?:users-groups|userborn)\.json`)
	var a accounts
	for _, place := range []string{"/activate", "/etc/systemd/system/userborn.service"} {
		script, _ := readSome(toplevel + place)
		text, err := readSome(pattern.FindString(script))
		if err == nil && json.Unmarshal([]byte(text), &a) == nil {
			break
		}
	}
	return a
}

func (accounts) byName(list []json.RawMessage) map[string]string {
	named := map[string]string{}
	for _, raw := range list {
		var entry struct{ Name string }
		if json.Unmarshal(raw, &entry) == nil && entry.Name != "" {
			named[entry.Name] = string(raw)
		}
	}
	return named
}
