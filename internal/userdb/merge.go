package userdb

import (
	"slices"
	"strings"
)

// lines are a table: its lines as they stand there, and those of each name.
type lines struct {
	all    []string
	byName map[string][]string
}

func parse(content []byte) lines {
	t := lines{byName: map[string][]string{}}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		t.all = append(t.all, line)
		if name, ok := nameOf(line); ok {
			t.byName[name] = append(t.byName[name], line)
		}
	}
	return t
}

// nameOf is whom a line is about; not ok for a comment, or what else is no entry.
func nameOf(line string) (string, bool) {
	name, _, ok := strings.Cut(line, ":")
	return name, ok && name != "" && name[0] != '#'
}

// declaredIn is the set of names that an activation had declared; nil where nobody wrote that down.
func declaredIn(s State, list string) map[string]bool {
	file, there := s.Files[list]
	if !there {
		return nil
	}
	set := map[string]bool{}
	for _, name := range strings.Fields(string(file.Content)) {
		set[name] = true
	}
	return set
}

// merging makes of a table before an activation, after it, and now, what it is without that activation.
type merging struct {
	before, after, now lines
	// known says that after is known; else it is now's.
	known bool
	// booted says that the system before has been activated since.
	booted bool
	// members says that the fourth field is a list of names.
	members bool
	// declared are those who were declared by the activation; nil if that is not known.
	declared map[string]bool
	// keepOthers says that whoever is only there now stays, and that nothing else of now counts.
	keepOthers bool
}

// merge gives the table's text: in the order before, then those who came since.
func (m merging) merge() []byte {
	var b strings.Builder
	done := map[string]bool{}
	put := func(texts []string) {
		for _, line := range texts {
			b.WriteString(line)
			b.WriteByte('\n')
		}
	}
	for _, line := range m.before.all {
		name, ok := nameOf(line)
		switch {
		case !ok:
			put([]string{line})
		case !done[name]:
			put(m.was(name))
		}
		done[name] = true
	}
	for _, line := range m.now.all {
		if name, ok := nameOf(line); ok && !done[name] {
			done[name] = true
			if m.byOthers(name) {
				put(m.now.byName[name])
			}
		}
	}
	return []byte(b.String())
}

// mergePart is merge where before and after have only what an activation has changed: the rest of now stays, in its order.
func (m merging) mergePart() []byte {
	var b strings.Builder
	done := map[string]bool{}
	put := func(name string, texts []string) {
		done[name] = true
		for _, line := range texts {
			b.WriteString(line + "\n")
		}
	}
	for _, line := range m.now.all {
		name, ok := nameOf(line)
		_, had := m.before.byName[name]
		switch {
		case !ok:
			b.WriteString(line + "\n")
		case done[name]:
		case had:
			put(name, m.was(name))
		case m.byOthers(name):
			put(name, m.now.byName[name])
		}
	}
	for _, line := range m.before.all {
		if name, ok := nameOf(line); ok && !done[name] {
			put(name, m.was(name))
		}
	}
	return []byte(b.String())
}

// was gives what becomes of a name that was there before.
func (m merging) was(name string) []string {
	before := m.before.byName[name]
	if m.keepOthers {
		return before
	}
	after, now := m.after.byName[name], m.now.byName[name]
	switch {
	case slices.Equal(after, now), now == nil && m.booted:
		return before
	case slices.Equal(after, before), after != nil && now == nil:
		// The activation had no part in it, or somebody has removed whom it had left.
		return now
	case len(before) == 1 && len(after) == 1 && len(now) == 1:
		return []string{m.fields(before[0], after[0], now[0])}
	}
	return before
}

// byOthers tells whether somebody who was not there before is not the activation's.
func (m merging) byOthers(name string) bool {
	_, came := m.after.byName[name]
	switch {
	case m.keepOthers, !came:
		return true
	case m.declared != nil:
		return !m.declared[name]
	}
	// Nobody says who was declared: what has come with the activation is its own.
	return !m.known
}

// fields puts a line together: what the activation has changed is as before, what others have changed is as now.
func (m merging) fields(before, after, now string) string {
	b, a, n := strings.Split(before, ":"), strings.Split(after, ":"), strings.Split(now, ":")
	if len(b) != len(a) || len(b) != len(n) {
		return before
	}
	for i := range b {
		switch {
		case n[i] == a[i]:
		case m.members && i == 3:
			b[i] = mergeNames(b[i], a[i], n[i])
		case a[i] == b[i]:
			b[i] = n[i]
		}
	}
	return strings.Join(b, ":")
}

// mergeNames does for lists of names what fields does for a line.
func mergeNames(before, after, now string) string {
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(c rune) bool { return c == ',' })
	}
	b, a, n := split(before), split(after), split(now)
	var all []string
	for _, name := range b {
		if slices.Contains(n, name) || !slices.Contains(a, name) {
			all = append(all, name)
		}
	}
	for _, name := range n {
		if !slices.Contains(b, name) && !slices.Contains(a, name) {
			all = append(all, name)
		}
	}
	return strings.Join(all, ",")
}
