package fleet_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// commandsRun has commands on all nodes, as alice and as root, for a person and from a file.
func commandsRun(c *crew) {
	o := c.Ferry("exec", "--all", "--", "sh", "-c", "id -un; echo to $0 >&2", "stderr")
	c.ends(o, 0)
	for _, m := range c.nodes {
		if !strings.Contains(o.Out, m.name+" | alice\n") || !strings.Contains(o.Errors, m.name+" | to stderr\n") {
			c.T.Errorf("%s does not say who it is", m.name)
		}
	}
	// web2 and web4 are kept apart from the others, and from a password of a file.
	c.member("web2").attributes, c.member("web4").attributes = "passwordFor = \"db\";\n", "passwordFor = \"db\";\n"
	c.plan("apart")
	p := c.Person("exec", "--all", "--sudo", "--group", "--", "sh", "-c", "id -un; test -e /etc/only || exit 4")
	for range 2 {
		p.Sees("sudo: password for alice on ")
		p.Types(lab.Password + "\n")
	}
	shown := p.Wants(1)
	for _, question := range []string{"password for", "password for alice on web1, web3: ", "password for alice on web2, web4: "} {
		want := 1
		if question == "password for" {
			want = 2
		}
		if asked := strings.Count(shown, question); asked != want {
			c.T.Errorf("it says %q %d times, want %d:\n%s", question, asked, want, shown)
		}
	}
	o = c.Ferry("exec", "web1", "web2", "--sudo", "--sudo-password-file", c.Password, "--", "true")
	o.Fails(c.T, 10, "--sudo-password-file is one password, and the inventory keeps these nodes apart: web1 (no passwordFor); web2 (passwordFor = \"db\")",
		"give the command once for each of these groups, or leave the flag away to be asked")
	c.member("web2").attributes, c.member("web4").attributes = "", ""
	c.plan("together")
	if strings.Count(shown, "root") != len(c.nodes) || strings.Count(shown, ": exit status 4") != len(c.nodes) {
		c.T.Errorf("not every node was root and failed")
	}
	c.member("web2").site.OnTarget("touch", "/etc/only")
	o = c.Ferry("exec", "web1", "web2", "--sudo", "--json", "--sudo-password-file", c.Password, "--", "test", "-e", "/etc/only")
	c.ends(o, 3)
	if !strings.Contains(o.Out, `{"node":"web1","exit":1,`) || !strings.Contains(o.Out, `{"node":"web2","exit":0,`) {
		c.T.Errorf("it says %s", o.Out)
	}
	o = c.Ferry("ssh", "web3", "--", "sh", "-c", "hostname; exit 9")
	c.ends(o, 9)
	if o.Out != "web\n" {
		c.T.Errorf("it says %q", o.Out)
	}
}

// eventsAreTold reads the events of a deployment of which one node fails.
func eventsAreTold(c *crew) {
	c.member("web2").more = failsToBuild
	c.plan("events")
	o := c.deploy("--all", "--json")
	c.ends(o, 3)
	steps := map[string][]string{}
	var names []string
	var last map[string]any
	for line := range strings.Lines(o.Out) {
		last = nil
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			c.T.Fatalf("%q: %v", line, err)
		}
		name, _ := last["event"].(string)
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		if node, _ := last["node"].(string); name == "finished" {
			step, _ := last["step"].(string)
			steps[node] = append(steps[node], step)
		}
	}
	if len(names) == 0 || names[0] != "begin" || last["event"] != "end" || last["exit"] != 3.0 {
		c.T.Errorf("the events are %q, the last one %v", names, last)
	}
	for _, step := range []string{"connect", "evaluate", "build", "ship", "activate", "confirm", "commit"} {
		if !slices.Contains(steps["web1"], step) {
			c.T.Errorf("the end of %s is not told of web1: %q", step, steps["web1"])
		}
	}
	of, _ := last["of"].(map[string]any)
	if of["web1"] != "done" || of["web2"] != "failed" {
		c.T.Errorf("at the end, %v", of)
	}
	if log := c.Ferry("log", "web2"); !strings.Contains(log.Out, "build | nothing works\n") || !strings.Contains(log.Out, "exit status 3\n") {
		c.T.Errorf("the log of web2 is %s", log.Out)
	}
}

// TestABatchIsInterrupted has a person who presses Ctrl-C while nodes wait for their
// batch: what is changed is changed, the rest is as it was, and is done by --resume.
func TestABatchIsInterrupted(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "web1", "web2")
	c.plan("one")
	p := c.Person("deploy", "--all", "--batch", "1", "--pause", "1h", "--sudo-password-file", c.Password)
	p.Sees("web1: done: ")
	p.Types("\x03")
	shown := p.Wants(3)
	if !strings.Contains(shown, "ferry: 2 nodes: 1 done, 1 not begun") {
		t.Error("it does not say what became of the nodes")
	}
	c.greet(map[string]string{"web1": "one web1", "web2": "installed"})
	c.ends(c.deploy("--resume"), 0)
	c.greet(map[string]string{"web1": "one web1", "web2": "one web2"})
}
