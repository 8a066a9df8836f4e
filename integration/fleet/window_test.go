package fleet_test

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"ferry/internal/lab"
)

// The lines of what a terminal shows of several nodes: of one at work, and the one that counts them.
var (
	atWork = regexp.MustCompile(`^web\d  (connecting|evaluating|building|shipping|activating|checking|confirming|committing)\b.* \d+ s$`)
	counts = regexp.MustCompile(`^\d of 4 done(, \d failed)?, \d at work(, \d waiting)?$`)
)

// watcher looks at every picture that a terminal shows.
type watcher struct {
	c *crew

	mu       sync.Mutex
	screen   *lab.Screen
	pictures int
	working  map[string]bool
}

// look is called with the screen before it is drawn anew.
func (w *watcher) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	rows := w.screen.Window()
	at := slices.IndexFunc(rows, atWork.MatchString)
	if at < 0 || !counts.MatchString(rows[len(rows)-1]) {
		return
	}
	w.pictures++
	seen := map[string]bool{}
	for _, row := range rows[at : len(rows)-1] {
		name, _, _ := strings.Cut(row, " ")
		if !atWork.MatchString(row) || seen[name] {
			w.c.T.Errorf("not one line for each node at work:\n%s", strings.Join(rows, "\n"))
			return
		}
		seen[name], w.working[name] = true, true
	}
	for _, row := range rows[:at] {
		if counts.MatchString(row) {
			w.c.T.Errorf("a line of an earlier picture is left:\n%s", strings.Join(rows, "\n"))
		}
	}
}

// aTerminalIsLeftClean has a person who makes the window larger and smaller again while four nodes are deployed, of which one fails.
func aTerminalIsLeftClean(c *crew) {
	c.member("web3").attributes = failsItsCheck
	for i, sizes := range [][2][2]int{{{80, 24}, {200, 50}}, {{200, 50}, {80, 24}}} {
		c.plan([]string{"small", "large"}[i])
		first, second := sizes[0], sizes[1]
		w := &watcher{c: c, screen: lab.NewScreen(first[0], first[1]), working: map[string]bool{}}
		w.screen.Redrawn = w.look
		cmd := c.Command("deploy", "--all", "--yes", "--sudo-password-file", c.Password)
		cmd.Env = append(cmd.Env, "NO_COLOR=1", "TERM=xterm-256color")
		p := c.AtScreen(cmd, w.screen)
		p.Sees("evaluating")
		p.Resizes(second[0], second[1])
		p.Sees("activating")
		p.Resizes(first[0], first[1])
		p.Wants(4)
		if w.pictures < 5 || len(w.working) != 4 {
			c.T.Errorf("%d pictures were seen, of %v at work", w.pictures, w.working)
		}
		if w.screen.Unknown != nil {
			c.T.Errorf("the terminal was sent %q", w.screen.Unknown)
		}
		lines := w.screen.Lines()
		if lines[len(lines)-1] != "" {
			c.T.Errorf("the last line is %q", lines[len(lines)-1])
		}
		for _, want := range []string{`^web1: done: generation \d+, `, `^web2: done: generation \d+, `, `^web4: done: generation \d+, `,
			`^ferry: error: web3: check: command false: exit status 1; the target rolled back`, `^ferry: 4 nodes: 3 done, 1 rolled back$`} {
			if n := matching(lines, want); n != 1 {
				c.T.Errorf("%d lines are like %s, want 1", n, want)
			}
		}
		if n := matching(lines, atWork.String()) + matching(lines, counts.String()); n != 0 {
			c.T.Errorf("%d lines of what was at work are left", n)
		}
		if c.T.Failed() {
			c.T.Logf("what is left is\n%s", strings.Join(lines, "\n"))
		}
	}
	c.member("web3").attributes = ""
}

// matching counts the lines that match an expression.
func matching(lines []string, expression string) int {
	n := 0
	for _, line := range lines {
		if regexp.MustCompile(expression).MatchString(line) {
			n++
		}
	}
	return n
}
