package compare

import (
	"strings"
)

// mount is a line of fstab, but for what only a check of the file system goes by.
type mount struct{ device, kind, options string }

// readFstab gives what a system mounts, by mount point, and what it swaps to, as "swap DEVICE".
func readFstab(toplevel string) map[string]mount {
	mounts := map[string]mount{}
	text, _ := readSome(toplevel + "/etc/fstab")
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		m := mount{device: f[0], kind: f[2], options: "defaults"}
		if len(f) > 3 {
			m.options = f[3]
		}
		// fstab writes a blank so.
		place := strings.ReplaceAll(f[1], `\040`, " ")
		if m.kind == "swap" {
			place = "swap " + strings.ReplaceAll(m.device, `\040`, " ")
		}
		mounts[place] = m
	}
	return mounts
}

// compareMounts compares what two systems mount.
func compareMounts(before, after string) Names {
	was, is := readFstab(before), readFstab(after)
	texts := func(mounts map[string]mount) map[string]string {
		named := map[string]string{}
		for place, m := range mounts {
			named[place] = strings.Join([]string{m.device, m.kind, m.options}, " ")
		}
		return named
	}
	return compareMaps(texts(was), texts(is), func(a, b string) bool { return a == b })
}

// fixedMounts are those that a switch cannot unmount, of which another device or kind comes with the next boot only.
var fixedMounts = [...]string{"/", "/nix"}

// bootMounts are the fixed mounts of which it takes a boot to change them.
func bootMounts(before, after string) []string {
	was, is := readFstab(before), readFstab(after)
	var changed []string
	for _, place := range fixedMounts {
		a, mounted := was[place]
		b, stays := is[place]
		if mounted && stays && (a.device != b.device || a.kind != b.kind) {
			changed = append(changed, "the mount of "+place)
		}
	}
	return changed
}

// compareUserUnits compares the units of users' own service managers.
func compareUserUnits(before, after string) Names {
	old, new := openUnits(before+"/etc/systemd/user"), openUnits(after+"/etc/systemd/user")
	present := func(f *unitFolder) map[string]string {
		named := map[string]string{}
		for unit := range f.units {
			if f.read(unit) != nil {
				named[unit] = unit
			}
		}
		return named
	}
	return compareMaps(present(old), present(new), func(unit, _ string) bool { return old.read(unit).difference(new.read(unit)) == same })
}
