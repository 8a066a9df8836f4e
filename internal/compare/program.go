package compare

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Program is a switch-to-configuration, by whose rules units are stopped and started.
type Program string

// The programs, by when they came. What is foretold of others lies between these.
const (
	// Today is switch-to-configuration-ng as it is in 2026.
	Today Program = "2026"
	// Autumn2024 is the same as NixOS 24.11 began with it.
	Autumn2024 Program = "2024-09"
	// Perl is the one from before, as it was up to 21.05.
	Perl Program = "perl"
)

const (
	// maxProgram is how much of a program is looked at.
	maxProgram = 64 << 20
	// switchProgram is where a system has it.
	switchProgram = "/bin/switch-to-configuration"
)

var storeProgram = regexp.MustCompile(`/[^\s"'\x00]*/\.?switch-to-configuration[^\s"'\x00]*`)

// ofToday is what only the program of today has to know of those who write units.
var ofToday = []string{"X-NotSocketActivated", "x-systemd.automount", "following user units"}

// programsOf tells which program a system brings, by what that is made of: the first is what it is or is most like, further ones
// are those that it may be like as well.
func programsOf(toplevel string) []Program {
	text := readProgram(toplevel + switchProgram)
	first, _, _ := bytes.Cut(text, []byte("\n"))
	has := func(text []byte, words ...string) bool {
		for _, word := range words {
			if !bytes.Contains(text, []byte(word)) {
				return false
			}
		}
		return true
	}
	switch {
	case has(first, "#!") && has(first, "perl"):
		if has(text, "fingerprintUnit") {
			return []Program{Perl}
		}
		// From 21.11 on it compares texts, as what was written after it does.
		return []Program{Autumn2024, Perl}
	case !has(text, "TOPLEVEL", "INSTALL_BOOTLOADER", "SYSTEMD"):
		return []Program{Today, Autumn2024, Perl}
	case !has(text, "PRE_SWITCH_CHECK"):
		// All later ones do nothing without it.
		return []Program{Autumn2024}
	}
	for _, place := range append([]string{toplevel + switchProgram}, places(text)...) {
		if has(readProgram(place), ofToday...) {
			return []Program{Today}
		}
	}
	return []Program{Today, Autumn2024}
}

// places are the programs that a wrapper names.
func places(wrapper []byte) []string {
	var found []string
	for _, place := range storeProgram.FindAll(wrapper, 16) {
		found = append(found, string(place))
	}
	return found
}

func readProgram(path string) []byte {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	text, _ := io.ReadAll(io.LimitReader(file, maxProgram))
	return text
}

// needsReexec tells whether a switch has systemd start itself anew: for another program, and by all but the one in Perl for
// another system.conf, which counts as another where only its place is.
func needsReexec(program Program, before, after string) bool {
	if place(before+"/systemd/lib/systemd/systemd") != place(after+"/systemd/lib/systemd/systemd") {
		return true
	}
	const file = "/etc/systemd/system.conf"
	return program != Perl && place(before+file) != place(after+file)
}

// place is where a path leads in the end, or as far as that is on this machine; "" if nowhere.
func place(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return ""
	}
	to, err := os.Readlink(filepath.Join(folder, filepath.Base(path)))
	if err != nil {
		return ""
	}
	if !strings.HasPrefix(to, "/") {
		to = filepath.Join(folder, to)
	}
	return to
}
