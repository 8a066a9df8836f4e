package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"ferry/internal/compare"
	"ferry/internal/preview"
	"ferry/internal/prose"
	"ferry/internal/run"
)

// writeComparison writes how two systems differ: what needs a person first, lists wrapped at tableWidth.
func writeComparison(w io.Writer, c *preview.Comparison) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: from %s to %s\n", c.Node, run.Clean(c.Before.Name), run.Clean(c.After.Name))
	writeDifferences(&b, c)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeDifferences is the body of a comparison.
func writeDifferences(b *strings.Builder, c *preview.Comparison) {
	if c.Same() {
		b.WriteString("  the same system\n")
		return
	}
	if c.NeedsReboot != "" {
		field(b, "needs a reboot", c.NeedsReboot)
	}
	if s := c.System; s != nil {
		field(b, "at next boot", strings.Join(s.Boot, ", "))
		writeSwitch(b, s)
	}
	if c.Closure != nil {
		writePackages(b, *c.Closure)
	}
	if s := c.System; s != nil {
		for _, part := range []struct {
			title string
			names compare.Names
		}{{"users", s.Users}, {"groups", s.Groups}, {"/etc", s.Etc}} {
			list(b, part.title+" added", part.names.Added)
			list(b, part.title+" removed", part.names.Removed)
			list(b, part.title+" changed", part.names.Changed)
		}
		comesAndGoes(b, "mounts", s.Mounts)
		userUnits(b, s)
		if s.Units.Empty() && !s.Reexec && s.Refused == "" && s.Mounts.Empty() && s.UserUnits.Empty() && s.Etc.Empty() && s.Users.Empty() && s.Groups.Empty() && len(s.Boot) == 0 {
			field(b, "activation", "nothing changes but store paths")
		}
	}
	if c.Closure != nil {
		field(b, "closure", closureLine(*c.Closure))
	}
	for _, text := range c.Unknown {
		field(b, "not known", text)
	}
}

// comesAndGoes writes in one line what few things change of.
func comesAndGoes(b *strings.Builder, title string, n compare.Names) {
	var words []string
	for _, part := range []struct {
		word  string
		names []string
	}{{"added", n.Added}, {"removed", n.Removed}, {"changed", n.Changed}} {
		for _, name := range part.names {
			words = append(words, name+" "+part.word)
		}
	}
	list(b, title, words)
}

// writeSwitch writes what a switch does to services, what of that cannot go well first.
func writeSwitch(b *strings.Builder, s *compare.System) {
	field(b, "switch refused", s.Refused)
	for _, text := range s.Problems {
		field(b, "PROBLEM", text)
	}
	list(b, "swapped off", s.Swapoff)
	if s.Reexec {
		field(b, "systemd", "starts itself anew")
	}
	u := s.Units
	list(b, "units stopped", u.Stop)
	list(b, "units restarted", u.Restart)
	list(b, "units reloaded", u.Reload)
	list(b, "units started", u.Start)
	list(b, "run again", u.Again)
	list(b, "not restarted", u.Skip)
	list(b, "changed, left", u.Left)
	list(b, "changed, idle", u.Idle)
	if len(s.MayDiffer) > 0 {
		field(b, "may differ", "which switch program the new system has cannot be told for sure; perhaps "+strings.Join(shown(s.MayDiffer), ", "))
	}
}

// userUnits writes which of users' own units come, go and change, and what a switch does to them.
func userUnits(b *strings.Builder, s *compare.System) {
	done := s.UserActions.Done()
	said := map[string]bool{}
	var words []string
	for _, part := range []struct {
		word  string
		names []string
	}{{"added", s.UserUnits.Added}, {"removed", s.UserUnits.Removed}, {"changed", s.UserUnits.Changed}} {
		for _, name := range part.names {
			said[name] = true
			word := name + " " + part.word
			if what := done[name]; what != "" && part.word != "added" {
				word += " (" + what + ")"
			}
			words = append(words, word)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(done)) {
		if !said[name] {
			words = append(words, name+" "+done[name])
		}
	}
	list(b, "user units", words)
}

// writePackages writes those with versions, and counts the others.
func writePackages(b *strings.Builder, c compare.Closure) {
	var added, removed, rebuilt []string
	plain := map[compare.Change]int{}
	title := "packages"
	width := 0
	for _, p := range c.Packages {
		if p.Versioned() && isMove(p.Change) {
			width = max(width, utf8.RuneCountInString(p.Name))
		}
	}
	for _, p := range c.Packages {
		switch {
		case !p.Versioned():
			plain[p.Change]++
		case isMove(p.Change):
			from, to := strings.Join(p.Before, ", "), strings.Join(p.After, ", ")
			line := fmt.Sprintf("%-*s  %s -> %s", min(width, 30), p.Name, from, to)
			if p.Change == compare.Downgraded {
				line += "  (downgrade)"
			}
			field(b, title, line)
			title = ""
		case p.Change == compare.Added:
			added = append(added, p.Name+" "+strings.Join(p.After, "+"))
		case p.Change == compare.Removed:
			removed = append(removed, p.Name+" "+strings.Join(p.Before, "+"))
		default:
			rebuilt = append(rebuilt, p.Name+" "+strings.Join(p.After, "+"))
		}
	}
	list(b, "added", added)
	list(b, "removed", removed)
	list(b, "rebuilt", rebuilt)
	var rest []string
	for _, change := range []compare.Change{compare.Added, compare.Removed, compare.Rebuilt} {
		if n := plain[change]; n > 0 {
			rest = append(rest, fmt.Sprintf("%d %s", n, change))
		}
	}
	list(b, "without version", rest)
}

// isMove tells whether a package goes from some versions to others.
func isMove(c compare.Change) bool {
	return c == compare.Upgraded || c == compare.Downgraded || c == compare.Changed
}

func closureLine(c compare.Closure) string {
	text := fmt.Sprintf("%s to %s", prose.Size(c.SizeBefore), prose.Size(c.SizeAfter))
	switch {
	case c.SizeAfter > c.SizeBefore:
		text += fmt.Sprintf(" (+%s)", prose.Size(c.SizeAfter-c.SizeBefore))
	case c.SizeAfter < c.SizeBefore:
		text += fmt.Sprintf(" (-%s)", prose.Size(c.SizeBefore-c.SizeAfter))
	}
	return text + fmt.Sprintf(", %d to %s", c.PathsBefore, prose.Count(c.PathsAfter, "path"))
}

// titleWidth is the width of the column of titles.
const titleWidth = 16

// field writes a line with a title, wrapped between words; nothing if the text is empty.
func field(b *strings.Builder, title, text string) {
	if text == "" {
		return
	}
	lines := wrap(run.Clean(text), tableWidth-4-titleWidth)
	for i, line := range lines {
		if i > 0 {
			title = ""
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-*s  %s", titleWidth, title, line), " ") + "\n")
	}
}

// maxShown is how many things of a list are shown; --json has all.
const maxShown = 40

func list(b *strings.Builder, title string, names []string) {
	field(b, title, strings.Join(shown(names), ", "))
}

// shown are the first names of a list, and how many more there are.
func shown(names []string) []string {
	if len(names) > maxShown {
		return append(names[:maxShown:maxShown], fmt.Sprintf("and %d more", len(names)-maxShown))
	}
	return names
}

// wrap breaks text between words into lines of at most width letters, where it can.
func wrap(text string, width int) []string {
	var lines []string
	for utf8.RuneCountInString(text) > width {
		letters := []rune(text)
		at := width
		for at > 0 && letters[at] != ' ' {
			at--
		}
		if at == 0 || strings.TrimSpace(string(letters[:at])) == "" {
			break
		}
		lines = append(lines, strings.TrimRight(string(letters[:at]), " "))
		text = strings.TrimLeft(string(letters[at:]), " ")
	}
	return append(lines, text)
}
