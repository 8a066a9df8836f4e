package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/deploy"
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
			p := newPasswords(func(_ context.Context, node, _ string, attempt int) ([]byte, error) {
				terminal <- struct{}{}
				defer func() { <-terminal }()
				if attempt > passwordTries {
					return nil, errors.New("wrong")
				}
				asked = append(asked, fmt.Sprintf("%s %d", users[node], attempt))
				if len(typed) == 0 {
					return nil, errors.New("nothing is typed any more")
				}
				word := typed[0]
				typed = typed[1:]
				time.Sleep(time.Second)
				return []byte(word), nil
			}, func(_ context.Context, node string) string { return users[node] })
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
					p.observe(deploy.Event{Kind: deploy.Finished, Step: deploy.Connect, Node: n[0]})
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
		p := newPasswords(func(_ context.Context, node, _ string, attempt int) ([]byte, error) {
			asked = append(asked, fmt.Sprintf("%s %d", node, attempt))
			return []byte(map[string]string{"a": "x", "b": "own"}[node]), nil
		}, func(context.Context, string) string { return "alice" })
		if failed := runNodes(t, p, [][3]string{{"a", "", "x"}, {"b", "", "own"}, {"c", "", "x"}}); len(failed) > 0 {
			t.Errorf("failed: %s", failed)
		}
		if got := strings.Join(asked, ", "); got != "a 1, b 2" {
			t.Errorf("asked about %s, want a 1, b 2", got)
		}
		p.forget()
		for _, s := range p.shared {
			if s.password != nil {
				t.Error("a password is remembered")
			}
		}
	})
}
