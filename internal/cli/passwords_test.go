package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/inventory"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// TestPasswordsAreAskedForOncePerUser locks who is asked about what: several nodes at once, each with a user and the password
// that it takes, and what a person types, in this order.
func TestPasswordsAreAskedForOncePerUser(t *testing.T) {
	for title, c := range map[string]struct {
		nodes [][3]string // name, user, password
		types string
		asked string // sorted
		fails string
	}{
		"one user":             {[][3]string{{"a", "alice", "x"}, {"b", "alice", "x"}, {"c", "alice", "x"}}, "x", "alice 1", ""},
		"two users":            {[][3]string{{"a", "alice", "x"}, {"b", "bob", "x"}}, "x x", "alice 1, bob 1", ""},
		"mistyped once":        {[][3]string{{"a", "alice", "x"}, {"b", "alice", "x"}, {"c", "alice", "x"}}, "y x", "alice 1, alice 2", ""},
		"never right anywhere": {[][3]string{{"a", "alice", "x"}}, "y y y", "alice 1, alice 2, alice 3", "a"},
	} {
		synctest.Test(t, func(t *testing.T) {
			users, typed := map[string]string{}, strings.Fields(c.types)
			for _, n := range c.nodes {
				users[n[0]] = n[1]
			}
			var asked []string
			terminal := make(chan struct{}, 1)
			p := newPasswords(named(c.nodes), func(_ context.Context, q question) ([]byte, error) {
				terminal <- struct{}{}
				defer func() { <-terminal }()
				if q.attempt > passwordTries {
					return nil, errors.New("wrong")
				}
				asked = append(asked, fmt.Sprintf("%s %d", q.user, q.attempt))
				if len(typed) == 0 {
					return nil, errors.New("nothing is typed any more")
				}
				word := typed[0]
				typed = typed[1:]
				time.Sleep(time.Second)
				return []byte(word), nil
			}, func(_ context.Context, node inventory.Node) (string, bool) { return users[node.Name], true })
			failed := runNodes(t, p, c.nodes)
			slices.Sort(asked)
			if got := strings.Join(asked, ", "); got != c.asked {
				t.Errorf("%s: asked %s, want %s", title, got, c.asked)
			}
			if got := strings.Join(failed, " "); got != c.fails {
				t.Errorf("%s: %q failed, want %q", title, got, c.fails)
			}
		})
	}
}

// named are nodes with these names.
func named(list [][3]string) []inventory.Node {
	var nodes []inventory.Node
	for _, n := range list {
		nodes = append(nodes, inventory.Node{Name: n[0]})
	}
	return nodes
}

// runNodes lets nodes log in side by side, the first a little earlier, and gives those that failed.
func runNodes(t *testing.T, p *passwords, nodes [][3]string) []string {
	t.Helper()
	var mu sync.Mutex
	var failed []string
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			defer p.settle(n[0], false)
			for attempt := 1; ; attempt++ {
				got, err := p.give(t.Context(), n[0], "sudo", attempt)
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, n[0])
					return
				}
				time.Sleep(time.Second)
				if string(got) == n[2] {
					clear(got)
					p.observe(session.Event{Kind: session.Finished, Step: session.Connect, Node: n[0]})
					return
				}
			}
		})
	}
	group.Wait()
	return failed
}

// TestANodeWithItsOwnPasswordIsAskedAboutAlone locks that a password which was right elsewhere stays what the others get.
func TestANodeWithItsOwnPasswordIsAskedAboutAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		nodes := [][3]string{{"a", "", "x"}, {"b", "", "own"}, {"c", "", "x"}}
		p := newPasswords(named(nodes), func(_ context.Context, q question) ([]byte, error) {
			asked = append(asked, fmt.Sprintf("%s %d", strings.Join(q.nodes, " "), q.attempt))
			return []byte(map[string]string{"a": "x", "b": "own"}[q.nodes[0]]), nil
		}, func(context.Context, inventory.Node) (string, bool) { return "alice", true })
		if failed := runNodes(t, p, nodes); len(failed) > 0 {
			t.Errorf("failed: %s", failed)
		}
		if got := strings.Join(asked, ", "); got != "a b c 1, b 2" {
			t.Errorf("asked about %s, want a b c 1, b 2", got)
		}
		p.forget()
		for _, s := range p.groups {
			if s.password != nil {
				t.Error("a password is remembered")
			}
		}
	})
}

// TestANodeKeptApartIsAskedAboutAlone locks whose password may go where: which questions are asked, with the user and all nodes
// that share what is typed.
func TestANodeKeptApartIsAskedAboutAlone(t *testing.T) {
	node := func(name string, change func(*inventory.Node)) inventory.Node {
		n := inventory.Node{Name: name, Target: "alice@" + name}
		if change != nil {
			change(&n)
		}
		return n
	}
	word := func(word string) func(*inventory.Node) { return func(n *inventory.Node) { n.PasswordFor = word } }
	to := func(targets ...string) func(*inventory.Node) {
		return func(n *inventory.Node) { n.Target, n.Fallbacks = targets[0], targets[1:] }
	}
	by := func(elevate ...string) func(*inventory.Node) { return func(n *inventory.Node) { n.Elevate = elevate } }
	for title, c := range map[string]struct {
		nodes []inventory.Node
		file  bool
		want  []string
	}{
		"the same user": {[]inventory.Node{node("web1", nil), node("web5", by("sudo")), node("web2", nil)}, false, []string{"alice: web1 web5 web2"}},
		"a word": {[]inventory.Node{node("web1", nil), node("db1", word("db")), node("web2", nil), node("db2", word("db")), node("x", word("x"))}, false,
			[]string{"alice: web1 web2", "alice: db1 db2", "alice: x"}},
		"other users": {[]inventory.Node{node("a", nil), node("b", to("bob@b")), node("c", nil)}, false, []string{"alice: a c", "bob: b"}},
		"other users at a further address": {[]inventory.Node{node("a", nil), node("b", to("alice@b", "bob@b")), node("c", to("alice@c", "alice@d"))}, false,
			[]string{"alice: a c", "alice or bob: b"}},
		"other commands": {[]inventory.Node{node("a", nil), node("b", by("doas")), node("c", by("doas", "-u", "root")), node("d", by("doas"))}, false,
			[]string{"alice: a", "alice: b d", "alice: c"}},
		"nobody knows the user": {[]inventory.Node{node("a", to("a")), node("b", to("b")), node("c", to("local"))}, false, []string{": a", ": b", ": c"}},
		"ssh knows the user":    {[]inventory.Node{node("a", nil), node("b", to("known"))}, false, []string{"alice: a b"}},
		"from a file":           {[]inventory.Node{node("a", nil), node("b", to("bob@b")), node("c", to("local"))}, true, []string{": a b c"}},
	} {
		t.Run(title, func(t *testing.T) {
			// This ssh knows of one host who logs in there.
			bin := t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte("#!/bin/sh\ncase $* in *' known') echo user alice ;; *) exit 255 ;; esac\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin)
			a := &app{}
			if c.file {
				a.password.file = "password"
			}
			var asked []string
			p := newPasswords(c.nodes, func(_ context.Context, q question) ([]byte, error) {
				asked = append(asked, q.user+": "+strings.Join(q.nodes, " "))
				return []byte("x"), nil
			}, a.loginUser(&target.Dialer{Runner: &run.Runner{}}))
			for _, n := range c.nodes {
				if got, err := p.give(t.Context(), n.Name, "sudo", 1); err != nil || string(got) != "x" {
					t.Fatalf("%s: got %q, %v", n.Name, got, err)
				}
				p.settle(n.Name, true)
			}
			if !slices.Equal(asked, c.want) {
				t.Errorf("asked for %q, want %q", asked, c.want)
			}
		})
	}
}

// TestAPromptNamesUserAndNodes locks what a person reads before typing.
func TestAPromptNamesUserAndNodes(t *testing.T) {
	many := make([]string, 25)
	for i := range many {
		many[i] = fmt.Sprintf("n%d", i+1)
	}
	for _, c := range []struct {
		q    question
		want string
	}{
		{question{[]string{"web1", "web2", "web5"}, "alice", "sudo", 1}, "sudo: password for alice on web1, web2, web5: "},
		{question{[]string{"web1", "web2"}, "alice", "doas", 2}, "doas: wrong password, try again: password for alice on web1, web2: "},
		{question{many, "alice", "sudo", 1}, "sudo: password for alice on n1, n2, n3, n4, n5, n6, n7, n8 and 17 more: "},
		{question{[]string{"web"}, "", "sudo", 1}, "web: password for sudo: "},
		{question{[]string{"web"}, "", "sudo", 3}, "web: wrong password, try again: "},
		{question{[]string{"web"}, "a\x1b[2Jb\r", "su\x1b]0;x\ado", 1}, "sudo: password for ab? on web: "},
	} {
		if got := c.q.prompt(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestOnePasswordIsNotTakenToNodesThatAreKeptApart locks that a file or a command gives its password to no node kept from another.
func TestOnePasswordIsNotTakenToNodesThatAreKeptApart(t *testing.T) {
	web1, web2 := inventory.Node{Name: "web1", Target: "alice@web1"}, inventory.Node{Name: "web2", Target: "alice@web2"}
	db1, db2 := inventory.Node{Name: "db1", Target: "alice@db1", PasswordFor: "db"}, inventory.Node{Name: "db2", Target: "alice@db2", PasswordFor: "db"}
	root := inventory.Node{Name: "root", Target: "root@root", PasswordFor: "other"}
	both := inventory.Node{Name: "both", Target: "root@both", Fallbacks: []string{"alice@both"}, PasswordFor: "other"}
	const file, command = "--sudo-password-file", "--sudo-password-command"
	for title, c := range map[string]struct {
		flag  string
		nodes []inventory.Node
		want  string
	}{
		"nobody gives one":     {"", []inventory.Node{web1, db1}, ""},
		"none is kept apart":   {file, []inventory.Node{web1, web2}, ""},
		"only those":           {file, []inventory.Node{db1, db2}, ""},
		"one alone":            {command, []inventory.Node{db1}, ""},
		"root is never asked":  {file, []inventory.Node{web1, root}, ""},
		"root at one address":  {file, []inventory.Node{web1, both}, `both (passwordFor = "other")`},
		"a file":               {file, []inventory.Node{web1, db1, web2}, `--sudo-password-file is one password, and the inventory keeps these nodes apart: web1, web2 (no passwordFor); db1 (passwordFor = "db")`},
		"a command":            {command, []inventory.Node{db1, web1}, "--sudo-password-command is one password"},
		"the last one differs": {file, []inventory.Node{db1, db2, both}, `db1, db2 (passwordFor = "db"); both (passwordFor = "other")`},
	} {
		t.Run(title, func(t *testing.T) {
			a := &app{}
			switch c.flag {
			case file:
				a.password.file = "password"
			case command:
				a.password.command = "pass show web"
			}
			err := a.onePassword(t.Context(), c.nodes)
			if c.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var usage *usageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
