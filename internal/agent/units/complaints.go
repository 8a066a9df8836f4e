package units

import (
	"cmp"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"ferry/internal/run"
)

// Complaints are what a switch-to-configuration has said of units.
type Complaints struct {
	// Units are those that it calls failed; a user's stand behind the user's name and a colon.
	Units []string
	// Users are those whose part there was.
	Users []string
	// UsersWithoutBus are those whose units it could not look at, because they have no manager.
	UsersWithoutBus []string
	// Snippets are the parts of the activation script that failed.
	Snippets []string
	Last     string // the last line
}

// InSnippets is how a reason goes on that is about the activation script.
func (c Complaints) InSnippets() string {
	if len(c.Snippets) == 0 {
		return ""
	}
	return ": " + strings.Join(c.Snippets, ", ")
}

// maxComplaints is how much of the end of a log is searched, in bytes.
const maxComplaints = 1 << 20

// What the programs print, NixOS's old one and its new one, systemctl among them.
var (
	saidFailed     = regexp.MustCompile(`^warning: the following (user )?units failed: (.+)$`)
	saidUserReload = regexp.MustCompile(`^reloading user units for ([^ ]+?)\.\.\.$`)
	saidUserFailed = regexp.MustCompile(`^warning: user activation for ([^ ]+) failed`)
	saidJob        = regexp.MustCompile(`^Failed to (?:start|stop|restart|reload|try-restart|reload-or-restart) (user unit )?([^ :]+\.[a-z]+)(?::.*)?$`)
	saidJobFor     = regexp.MustCompile(`^(?:Job for|A dependency job for) ([^ ]+\.[a-z]+) failed`)
	saidSnippet    = regexp.MustCompile(`^Activation script snippet '([^']+)' failed`)
	saidNoBus      = regexp.MustCompile(`^Error: Failed to open dbus connection`)
)

// ReadComplaints reads what was said in the log of a job.
func ReadComplaints(name string) Complaints {
	file, err := os.Open(name)
	if err != nil {
		return Complaints{}
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > maxComplaints {
		_, _ = file.Seek(-maxComplaints, io.SeekEnd)
	}
	return parseComplaints(file)
}

// parseComplaints reads a log. What stands in it between the first user's part and its end is written by the users: that is no word
// about the system's units. The end is where the program goes on to the system's, the last time that this is said.
func parseComplaints(log io.Reader) (c Complaints) {
	lines := strings.Split(readAll(log), "\n")
	users, system := len(lines), len(lines)
	for i, line := range lines {
		if users > i && saidUserReload.MatchString(line) {
			users = i
		}
		if strings.HasPrefix(line, "restarting sysinit-reactivation.target") {
			system = i
		}
	}
	user, noBus := "", false
	add := func(units *[]string, unit string) {
		if unit = run.Clean(unit); !slices.Contains(*units, unit) {
			*units = append(*units, unit)
		}
	}
	for i, text := range lines {
		line, theirs := strings.TrimSpace(text), i > users && i < system
		if line != "" && !strings.HasPrefix(line, "ferry: ") {
			c.Last = run.Clean(line)
		}
		name := func(ofUser, unit string) {
			switch {
			case ofUser != "":
				add(&c.Units, cmp.Or(user, "a user")+": "+unit)
			case !theirs:
				add(&c.Units, unit)
			}
		}
		if m := saidUserReload.FindStringSubmatch(line); m != nil {
			user, noBus = m[1], false
			add(&c.Users, user)
		} else if m := saidFailed.FindStringSubmatch(line); m != nil {
			for unit := range strings.SplitSeq(m[2], ", ") {
				name(m[1], unit)
			}
		} else if m := saidJob.FindStringSubmatch(line); m != nil {
			name(m[1], m[2])
		} else if m := saidJobFor.FindStringSubmatch(line); m != nil {
			name("", m[1])
		} else if m := saidSnippet.FindStringSubmatch(line); m != nil && !theirs {
			add(&c.Snippets, m[1])
		} else if saidNoBus.MatchString(line) {
			noBus = user != ""
		} else if m := saidUserFailed.FindStringSubmatch(line); m != nil {
			switch ofUser := m[1] + ": "; {
			case noBus:
				add(&c.UsersWithoutBus, m[1])
			case !slices.ContainsFunc(c.Units, func(unit string) bool { return strings.HasPrefix(unit, ofUser) }):
				add(&c.Units, ofUser+unnamed)
			}
			user, noBus = "", false
		}
	}
	return c
}

func readAll(log io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(log, maxComplaints))
	return string(text)
}

// Sort tells the units that are judged from those of other users. A user's part may hold whatever that user's manager says, of
// another user too: where others have one, the managers of the judged users alone say what has failed of theirs. One of whom
// nothing is named has no failed unit.
func (c Complaints) Sort(judged []string) (mine, theirs []string) {
	foreign := slices.ContainsFunc(c.Users, func(user string) bool { return !slices.Contains(judged, user) })
	for _, unit := range c.Units {
		user, name, ofUser := strings.Cut(unit, ": ")
		if !ofUser || !foreign && name != unnamed && slices.Contains(judged, user) {
			mine = append(mine, unit)
		} else {
			theirs = append(theirs, unit)
		}
	}
	return mine, theirs
}

// unnamed is how the units of a user are called of whom only that is known that something failed.
const unnamed = "its user units"

// NameUsers leaves a user without names out where units of that user are named, here or there.
func NameUsers(units, there []string) []string {
	named := func(user string) bool {
		return slices.ContainsFunc(slices.Concat(units, there), func(unit string) bool {
			return strings.HasPrefix(unit, user) && unit != user+unnamed
		})
	}
	return slices.DeleteFunc(slices.Clone(units), func(unit string) bool {
		user, isUnnamed := strings.CutSuffix(unit, unnamed)
		return isUnnamed && named(user)
	})
}

// Union is a, and what b has besides.
func Union(a, b []string) []string {
	all := slices.Clone(a)
	for _, unit := range b {
		if !slices.Contains(all, unit) {
			all = append(all, unit)
		}
	}
	return all
}
