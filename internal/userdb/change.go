package userdb

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Change is what one activation has made of the accounts: the entries that it has changed, before and after, and what was declared.
// It is what an activation of the system before needs, long after, to bring back who was there.
type Change struct {
	// From and To are the toplevels before and after.
	From   string `json:"from"`
	To     string `json:"to"`
	Before State  `json:"before"`
	After  State  `json:"after"`
}

// Difference gives what has changed between two States; ok is false where nothing has.
func Difference(before, after State) (c Change, ok bool) {
	c.Before, c.After = State{Files: map[string]File{}}, State{Files: map[string]File{}}
	for _, name := range lists {
		for _, pair := range []struct{ from, to State }{{before, c.Before}, {after, c.After}} {
			if file, there := pair.from.Files[name]; there {
				pair.to.Files[name] = file
			}
		}
	}
	for _, t := range tables {
		was, is := before.Files[t.name], after.Files[t.name]
		if bytes.Equal(was.Content, is.Content) {
			continue
		}
		ok = true
		old, changed := parse(was.Content), parse(is.Content)
		was.Content, is.Content = old.without(changed), changed.without(old)
		c.Before.Files[t.name], c.After.Files[t.name] = was, is
	}
	return c, ok
}

// without gives the lines of the names that other has not just so.
func (t lines) without(other lines) []byte {
	var b strings.Builder
	for _, line := range t.all {
		if name, ok := nameOf(line); ok && !slices.Equal(t.byName[name], other.byName[name]) {
			b.WriteString(line + "\n")
		}
	}
	return []byte(b.String())
}

// Undo undoes the change in the accounts of the machine below root, before the system is activated that ran before it. Whatever
// others have changed since stays, a new password of who was there in both too.
func (c Change) Undo(root string) error {
	return change(root, c.Before, func(now State) State {
		next := State{Files: maps.Clone(now.Files)}
		for _, name := range lists {
			delete(next.Files, name)
			if file, had := c.Before.Files[name]; had {
				next.Files[name] = file
			}
		}
		for _, t := range tables {
			was, has := c.Before.Files[t.name]
			file, there := now.Files[t.name]
			if !has || !there {
				continue
			}
			m := merging{
				before: parse(was.Content), after: parse(c.After.Files[t.name].Content), now: parse(file.Content),
				known: true, members: t.declared == declaredGroups, declared: declaredIn(c.After, t.declared),
			}
			file.Content = m.mergePart()
			next.Files[t.name] = file
		}
		return next
	})
}

// Complete is [Complete] for those alone whom the change was about, after an activation that followed Undo; want is what the
// accounts were in between.
func (c Change) Complete(root string, want State) error {
	return change(root, want, func(now State) State {
		next := State{Files: maps.Clone(now.Files)}
		for _, t := range tables {
			was, has := c.Before.Files[t.name]
			file, there := next.Files[t.name]
			if !has || !there {
				continue
			}
			wanted := parse(want.Files[t.name].Content)
			m := merging{before: lines{byName: map[string][]string{}}, now: parse(file.Content), keepOthers: true}
			for name := range parse(was.Content).byName {
				if texts := wanted.byName[name]; texts != nil {
					m.before.byName[name] = texts
					m.before.all = append(m.before.all, texts...)
				}
			}
			slices.Sort(m.before.all)
			file.Content = m.mergePart()
			next.Files[t.name] = file
		}
		return next
	})
}

// Brings tells whether undoing the change leaves a user there.
func (c Change) Brings(user string) bool {
	_, was := parse(c.Before.Files["/etc/passwd"].Content).byName[user]
	return was
}

// String keeps hashes out of what is printed.
func (c Change) String() string { return fmt.Sprintf("a change of %v", c.Before) }

// GoString is String.
func (c Change) GoString() string { return c.String() }

// Keep writes the change into the file name, as [State.Keep] does.
func (c Change) Keep(name string) error { return keep(name, c) }

// LoadChange reads what Keep has written. The error is [os.ErrNotExist] where there is nothing.
func LoadChange(name string) (Change, error) {
	var c Change
	err := load(name, &c)
	return c, err
}
