package units

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"ferry/internal/run"
)

// Printed is what a switch-to-configuration has printed.
type Printed string

// maxSaid is how much of it is looked at, in bytes. What tells how far it came stands at the beginning.
const maxSaid = 1 << 20

// ReadPrinted reads what was printed into a log from a place on; nothing if that is no file.
func ReadPrinted(log *os.File, from int64) Printed {
	if info, err := log.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	file, err := os.Open(log.Name())
	if err != nil {
		return ""
	}
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, from, maxSaid))
	if err != nil {
		return ""
	}
	return Printed(text)
}

// Began tells whether it had begun to change what runs, whichever status it ended with: to stop units, to take a swap away, or to
// activate. The last text is of a loss of D-Bus while units are stopped, of which targets are not named.
func (s Printed) Began() bool {
	return s.has("stopping the following units: ", "stopping swap device: ", "activating the configuration...",
		"Error: Failed to process dbus messages while waiting for jobs")
}

// IsLocked tells whether it found another one at work.
func (s Printed) IsLocked() bool { return s.has("Could not acquire lock") }

var leftUser = regexp.MustCompile(`(?m)^.*Unknown object '/org/freedesktop/login1/user/_[0-9]+'`)

// UserLeft tells whether logind did not know a user any more of whom it had just told. That ends the program after the activation,
// before it has started anything; run again it does the rest.
func (s Printed) UserLeft() bool { return leftUser.MatchString(string(s)) }

// has tells whether a line begins with one of the texts.
func (s Printed) has(beginnings ...string) bool {
	for line := range strings.Lines(string(s)) {
		if slices.ContainsFunc(beginnings, func(text string) bool { return strings.HasPrefix(line, text) }) {
			return true
		}
	}
	return false
}

var failedCheck = regexp.MustCompile(`(?m)^Pre-switch check '(.{1,100})' failed$`)

// Refusal is why it has refused, as far as that is its own word; "" if it is not known.
func (s Printed) Refusal() string {
	if !s.has("Pre-switch checks failed") {
		return ""
	}
	var names []string
	for _, match := range failedCheck.FindAllStringSubmatch(string(s), -1) {
		if name := run.Clean(match[1]); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return "the system's checks before a switch failed"
	case 1:
		return "the system's check before a switch failed: " + names[0]
	}
	return "the system's checks before a switch failed: " + strings.Join(names, ", ")
}
