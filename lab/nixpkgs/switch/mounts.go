package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// mount is a line of fstab.
type mount struct{ device, kind, options string }

// readFstab reads the file systems, by mount point, and the swaps, by device. The program in Perl leaves out comments, the others
// every line with their sign.
func readFstab(d dialect, file string) (systems map[string]mount, swaps map[string]mount) {
	systems, swaps = map[string]mount{}, map[string]mount{}
	text, err := os.ReadFile(file)
	if err != nil {
		return systems, swaps
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "#") && (d != perl || strings.HasPrefix(strings.TrimSpace(line), "#")) {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		m := mount{device: fields[0], kind: fields[2]}
		if len(fields) > 3 {
			m.options = fields[3]
		}
		if m.kind == "swap" {
			swaps[m.device] = m
		} else {
			systems[fields[1]] = m
		}
	}
	return systems, swaps
}

// unitOfPath is the name of the unit that mounts a path: see systemd.unit(5), "String escaping".
func unitOfPath(path, suffix string) string {
	path = strings.Trim(path, "/")
	if path == "" {
		return "-" + suffix
	}
	var name strings.Builder
	for i := range len(path) {
		c := path[i]
		switch {
		case c == '/':
			name.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '_', c == '.' && i > 0:
			name.WriteByte(c)
		default:
			fmt.Fprintf(&name, `\x%02x`, c)
		}
	}
	return name.String() + suffix
}

// compareMounts takes what has changed in fstab into the plan, and gives the swaps that are gone.
func (p *plan) compareMounts(d dialect, before, after string) (gone []string) {
	if _, err := os.Stat(after); err != nil {
		return nil
	}
	was, swaps := readFstab(d, before)
	is, swapsLeft := readFstab(d, after)
	for point, before := range was {
		unit := unitOfPath(point, ".mount")
		after, stays := is[point]
		switch fixed := point == "/" || point == "/nix"; {
		case !stays:
			if d == today && slices.Contains(strings.Split(before.options, ","), "x-systemd.automount") {
				unit = unitOfPath(point, ".automount")
			}
			p.stop[unit] = true
		case before.kind != after.kind || before.device != after.device:
			switch {
			case d == perl:
				p.stop[unit], p.start[unit] = true, true
			case !fixed:
				p.restart[unit] = true
			case before.options != after.options:
				p.reload[unit] = true
			default:
				p.skip[unit] = true
			}
		case before.options != after.options:
			p.reload[unit] = true
		}
	}
	for _, device := range sortedKeys(swaps) {
		if _, stays := swapsLeft[device]; !stays {
			gone = append(gone, device)
		}
	}
	return gone
}

// compareMounts takes what has changed in fstab into the plan, and stops swaps that are gone.
func (m *machine) compareMounts() {
	for _, device := range m.plan.compareMounts(m.rules, "/etc/fstab", m.toplevel+"/etc/fstab") {
		if m.action == "dry-activate" {
			say("would stop swap device: %s", device)
			continue
		}
		say("stopping swap device: %s", device)
		if out, err := exec.Command("swapoff", device).CombinedOutput(); err != nil {
			say("Failed to stop swapping to %s: %s", device, strings.TrimSpace(string(out)))
		}
	}
}
