package compare

import (
	"fmt"
	"slices"
	"strings"
)

// mount is a line of fstab, but for what only a check of the file system goes by.
type mount struct{ device, kind, options string }

// readFstab gives what a system mounts, by mount point, and what it swaps to, as "swap DEVICE".
func readFstab(toplevel string) map[string]mount {
	mounts := map[string]mount{}
	for _, f := range fstabLines(toplevel) {
		if strings.HasPrefix(f[0], "#") {
			continue
		}
		m := mountOf(f)
		if m.options == "" {
			m.options = "defaults"
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

// fstabLines are the fields of the lines of a system's fstab that have three at least.
func fstabLines(toplevel string) (lines [][]string) {
	text, _ := readSome(toplevel + "/etc/fstab")
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 3 {
			lines = append(lines, f)
		}
	}
	return lines
}

func mountOf(fields []string) mount {
	m := mount{device: fields[0], kind: fields[2]}
	if len(fields) > 3 {
		m.options = fields[3]
	}
	return m
}

// switchedFstab is what a switch program reads of a system's fstab: mounts by the place as it is written, and devices to swap to.
func switchedFstab(program Program, toplevel string) (mounts map[string]mount, swaps set) {
	mounts, swaps = map[string]mount{}, set{}
	for _, f := range fstabLines(toplevel) {
		if strings.HasPrefix(f[0], "#") || program != Perl && strings.Contains(strings.Join(f, " "), "#") {
			continue
		}
		if m := mountOf(f); m.kind == "swap" {
			swaps[m.device] = true
		} else {
			mounts[f[1]] = m
		}
	}
	return mounts, swaps
}

// mounts decides about what fstab mounts, mounted or not, and gives the devices that are not swapped to any more, which ends before
// anything else.
func (c *unitComparison) mounts(before, after string) (swapoff []string) {
	if !exists(after + "/etc/fstab") {
		return []string{}
	}
	was, swapped := switchedFstab(c.program, before)
	is, swaps := switchedFstab(c.program, after)
	for place, old := range was {
		unit := unitOfPath(place, ".mount")
		now, stays := is[place]
		switch moved := old.device != now.device || old.kind != now.kind; {
		case !stays:
			if c.program == Today && slices.Contains(strings.Split(old.options, ","), "x-systemd.automount") {
				unit = unitOfPath(place, ".automount")
			}
			c.stop[unit] = true
		case moved && c.program == Perl:
			c.stop[unit], c.start[unit] = true, true
		case moved && !slices.Contains(fixedMounts[:], place):
			c.restart[unit] = true
		case old.options != now.options:
			c.reload[unit] = true
			if c.loaded != nil && !c.loaded[unit] && slices.Contains(strings.Split(now.options, ","), "noauto") && c.program != Perl {
				c.problems = append(c.problems, fmt.Sprintf("%s has other options and is not mounted: the switch ends there with status 1, after the activation", place))
			}
		case moved:
			c.skip[unit] = true
		}
	}
	for device := range swaps {
		delete(swapped, device)
	}
	return swapped.sorted()
}

// unitOfPath is the name of the unit of a place: see systemd.unit(5), "String escaping".
func unitOfPath(place, kind string) string {
	var words []string
	for word := range strings.SplitSeq(place, "/") {
		if word != "" {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return "-" + kind
	}
	var name strings.Builder
	for n, b := range []byte(strings.Join(words, "/")) {
		switch {
		case b == '/':
			name.WriteByte('-')
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == ':', b == '_', b == '.' && n > 0:
			name.WriteByte(b)
		default:
			fmt.Fprintf(&name, `\x%02x`, b)
		}
	}
	return name.String() + kind
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

// compareUserUnits compares the units of users' own service managers by what they say.
func compareUserUnits(before, after string) Names {
	old, new := openUnits(Today, before+"/etc/systemd/user"), openUnits(Today, after+"/etc/systemd/user")
	present := func(f *unitFolder) map[string]string {
		named := map[string]string{}
		for unit := range f.units {
			if f.own(unit) != nil {
				named[unit] = unit
			}
		}
		return named
	}
	return compareMaps(present(old), present(new), func(unit, _ string) bool { return differenceOf(Today, old.own(unit), new.own(unit)) == same })
}

// userTargets are those that are active in a user's own service manager.
var userTargets = []string{"default.target", "basic.target", "sockets.target", "timers.target", "paths.target"}

// switchUsers tells what a switch does to users' own units, where they run: of the programs only today's does anything.
func switchUsers(program Program, before, after string) Units {
	const folder = "/etc/systemd/user"
	if program != Today {
		return noUnits()
	}
	states := map[string]string{}
	for unit := range openUnits(program, before+folder).units {
		if !isTarget(unit) {
			states[unit] = "active"
		}
	}
	for _, target := range userTargets {
		states[target] = "active"
	}
	c := newComparison(program, before+folder, after+folder, folder, &Running{States: states})
	if c.decide() != nil {
		return noUnits()
	}
	return c.result()
}
