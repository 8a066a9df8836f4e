package fleet_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

var everyKill = flag.Bool("every-kill", false, "kill ferry in every step, and not only where the target is being changed")

// moment is where a deployment of two nodes in two batches is interrupted, while it is in the first node.
type moment struct {
	step string // of the first node, or "" for the time between the batches
	// hold makes the step last until release, where it is short otherwise.
	hold, release func(c *crew)
	// changes tells that the target is being changed then, which goes on there; done, that the first node is as asked already.
	changes, done bool
}

// moments are those of a deployment, in their order.
func moments() []moment {
	onBuilder := func(name string) moment {
		file := func(c *crew) string { return c.Builder.Path(c.Project + "/../hold-" + name) }
		return moment{step: name,
			hold: func(c *crew) {
				if err := os.WriteFile(file(c), nil, 0o644); err != nil {
					c.T.Fatal(err)
				}
			},
			release: func(c *crew) { _ = os.Remove(file(c)) }}
	}
	nothing := func(*crew) {}
	return []moment{
		onBuilder("evaluate"), onBuilder("build"), {step: "ship", hold: nothing, release: nothing},
		{step: "activate", changes: true, hold: func(c *crew) { c.OnTarget("touch", "/run/hold-activate") },
			release: func(c *crew) { c.OnTarget("rm", "-f", "/run/hold-activate") }},
		{step: "confirm", changes: true, hold: nothing, release: nothing},
		{done: true, hold: nothing, release: nothing},
	}
}

// TestADeploymentIsInterruptedInEachStepAndResumed ends ferry in every step of the first node, as Ctrl-C does, and by a kill, and has
// --resume do what is left.
func TestADeploymentIsInterruptedInEachStepAndResumed(t *testing.T) {
	t.Parallel()
	c := &crew{Site: site.New(t, site.Options{Alone: true})}
	c.nodes = []*member{{name: "web1", site: c.Site}, {name: "web2", site: c.Another(lab.Options{})}}
	c.plan("turn0")
	c.ends(c.deploy("--all"), 0)
	turn := 0
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		for _, m := range moments() {
			if sig == syscall.SIGKILL && !m.changes && !*everyKill {
				continue
			}
			turn++
			name := m.step
			if name == "" {
				name = "between batches"
			}
			t.Run(fmt.Sprintf("%v/%s", sig, name), func(t *testing.T) { interruptedAndResumed(c.in(t), m, sig, fmt.Sprintf("turn%d", turn)) })
		}
	}
}

func interruptedAndResumed(c *crew, m moment, sig syscall.Signal, turn string) {
	c.member("web1").more = heldUp(c, turn)
	c.plan(turn)
	before := map[string]site.State{"web1": c.member("web1").site.State(), "web2": c.member("web2").site.State()}
	m.hold(c)
	status, ended := c.interruptIn(m, sig)
	after := c.member("web1").site.State()
	c.member("web2").site.Want(c.member("web2").site.State(), before["web2"])
	done := m.done || m.changes && sig == syscall.SIGINT
	switch {
	case sig == syscall.SIGKILL && status != -1:
		c.T.Errorf("status %d of a ferry that was killed", status)
	case sig == syscall.SIGINT && done && (status != 3 || ended["web1"] != "done" || ended["web2"] != "not begun"):
		c.T.Errorf("status %d, want 3; the nodes are %v", status, ended)
	case sig == syscall.SIGINT && !done && status != 130:
		c.T.Errorf("status %d, want 130; the nodes are %v", status, ended)
	}
	switch want := turn + " web1"; {
	case done && after.Greeting != want:
		c.T.Errorf("web1 greets with %q, want %q", after.Greeting, want)
	case !done && !m.changes:
		c.member("web1").site.Want(after, before["web1"])
	case m.step == "activate" && !done:
		// Nobody came back: it is as it was, but for what was started anew.
		went := before["web1"]
		went.Greeter = after.Greeter
		c.member("web1").site.Want(after, went)
	}

	o := c.deploy("--resume", "--json")
	c.ends(o, 0)
	began := map[string]bool{}
	for line := range strings.Lines(o.Out) {
		e := eventOf(c, line)
		if e.Event == "started" {
			began[e.Node] = true
		}
	}
	if began["web1"] == done || !began["web2"] {
		c.T.Errorf("what is resumed is %v", began)
	}
	c.greet(map[string]string{"web1": turn + " web1", "web2": turn + " web2"})
	if done {
		c.member("web1").site.Want(c.member("web1").site.State(), after)
	}
	for _, m := range c.nodes {
		if s := m.site.State(); s.Runs != s.Boots || s.Runs != s.Profile {
			c.T.Errorf("%s is left as %+v", m.name, s)
		}
	}
	c.ends(c.deploy("--resume"), 0)
}

// interruptIn begins a deployment, sends it a signal when its first node is seen at that moment, and gives how it ended and what became of
// the nodes. Then nothing of it is at work on the first node any more.
func (c *crew) interruptIn(m moment, sig syscall.Signal) (status int, ended map[string]string) {
	c.T.Helper()
	patience := "60s"
	if sig == syscall.SIGKILL {
		// Nobody confirms what this one has begun.
		patience = "5s"
	}
	cmd := c.Command("deploy", "--all", "--json", "--sudo-password-file", c.Password, "--batch", "1", "--pause", "1h", "--confirm-timeout", patience)
	out, err := cmd.StdoutPipe()
	var said strings.Builder
	cmd.Stderr = &said
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.T.Fatal(err)
	}
	ended = map[string]string{}
	sent := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		e := eventOf(c, lines.Text())
		if e.Event == "ended" {
			ended[e.Node] = e.Status
		}
		there := e.Node == "web1" && (e.Event == "started" && e.Step == m.step && m.step != "" || e.Event == "ended" && m.step == "")
		if !there || sent {
			continue
		}
		sent = true
		if err := cmd.Process.Signal(sig); err != nil {
			c.T.Fatal(err)
		}
		if m.changes {
			m.release(c)
		}
	}
	err = cmd.Wait()
	m.release(c)
	c.T.Logf("%v, and the nodes are %v\n%s", err, ended, said.String())
	var exit *exec.ExitError
	if !sent || err != nil && !errors.As(err, &exit) {
		c.T.Fatalf("it was not seen in the step, or did not end: %v", err)
	}
	c.NothingRunsThere()
	return cmd.ProcessState.ExitCode(), ended
}

// event is a line of what --json prints.
type event struct{ Event, Node, Step, Status string }

func eventOf(c *crew, line string) event {
	c.T.Helper()
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		c.T.Fatalf("%q: %v", line, err)
	}
	return e
}

// heldUp is a part of a configuration whose evaluation, build and activation last as long as somebody holds them up, and that has
// something to ship.
func heldUp(c *crew, turn string) string {
	wait := func(where string) string {
		return fmt.Sprintf(`derivation {
    name = "wait-%s-%s"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "while [ -e %s/../hold-%s ]; do sleep 0.05; done; echo done >$out" ];
  }`, where, turn, c.Project, where)
	}
	return site.Data(turn, 4, 1<<20) + fmt.Sprintf(`
  environment.etc."evaluated".text = builtins.readFile (%s);
  environment.etc."built".source = %s;
  system.activationScripts.hold = "while [ -e /run/hold-activate ]; do sleep 0.05; done";
`, wait("evaluate"), wait("build"))
}
