package fleet_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// The ways in which a node fails, as more of its configuration or its attributes.
const (
	failsToEvaluate = `environment.etc."x".text = throw "not today";`
	failsToBuild    = `environment.etc."x".source = derivation { name = "broken"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo nothing works; exit 3" ]; };`
	failsItsCheck   = "    checks.commands = [ { run = [ \"false\" ]; } ];\n"
)

// TestSeveralNodesAreDeployedAtOnce goes through what becomes of several nodes, one part after another on the same targets.
func TestSeveralNodesAreDeployedAtOnce(t *testing.T) {
	t.Parallel()
	crew := newCrew(t, "web1", "web2", "web3", "web4")
	t.Run("none is guessed", func(t *testing.T) { noneIsGuessed(crew.in(t)) })
	t.Run("each fails alone", func(t *testing.T) { eachFailsAlone(crew.in(t)) })
	t.Run("a failure is theirs who need it", func(t *testing.T) { aFailureIsTheirsWhoNeedIt(crew.in(t)) })
	t.Run("one password for all", func(t *testing.T) { onePasswordForAll(crew.in(t)) })
	t.Run("plans", func(t *testing.T) { plansAreShownAndAgreedToOnce(crew.in(t)) })
	t.Run("batches", func(t *testing.T) { batchesStop(crew.in(t)) })
	t.Run("a batch is taken back", func(t *testing.T) { aBatchIsTakenBack(crew.in(t)) })
	t.Run("a terminal", func(t *testing.T) { aTerminalIsLeftClean(crew.in(t)) })
	t.Run("a second address", func(t *testing.T) { aSecondAddress(crew.in(t)) })
	t.Run("a node knows the others", func(t *testing.T) { aNodeKnowsTheOthers(crew.in(t)) })
	t.Run("a narrowed source", func(t *testing.T) { aNarrowedSourceIsLeftAlone(crew.in(t)) })
	t.Run("commands", func(t *testing.T) { commandsRun(crew.in(t)) })
	t.Run("events", func(t *testing.T) { eventsAreTold(crew.in(t)) })
}

func noneIsGuessed(c *crew) {
	c.plan("never")
	c.deploy().Fails(c.T, 10, "no node is chosen: "+c.Project+"/ferry.nix has web1, web2, web3, web4", "add --all")
	c.greet(map[string]string{"web1": "installed", "web4": "installed"})
}

// eachFailsAlone has one node that goes well, and the others fail in evaluation, build, and their checks; one more cannot be
// reached.
func eachFailsAlone(c *crew) {
	c.member("web2").more = failsToEvaluate
	c.member("web3").more = failsToBuild
	c.member("web4").attributes = failsItsCheck
	gone := &member{name: "gone", site: c.nodes[0].site, target: `"alice@nowhere.invalid"`}
	c.nodes = append(c.nodes, gone)
	c.plan("one")
	o := c.deploy("--all")
	c.ends(o, 4)
	o.Says(c.T, "ferry: error: web2: evaluate: not today", "ferry: error: web3: build: broken failed with exit code 3", "  nothing works\n",
		"ferry: error: web4: check: command false: exit status 1; the target rolled back", "ferry: error: gone: connect: ssh alice@nowhere.invalid",
		"web1: done: generation ", "ferry: 5 nodes: 1 done, 2 failed (unchanged), 1 unreachable, 1 rolled back\n",
		"ferry: failed (unchanged): web2, web3\n", "ferry: unreachable: gone\n", "ferry: rolled back: web4\n")
	c.greet(map[string]string{"web1": "one web1", "web2": "installed", "web3": "installed", "web4": "installed"})

	// What is mended is what is left to do, and what was done is not touched.
	c.member("web2").more, c.member("web3").more = "", ""
	c.plan("one")
	before := c.member("web1").site.State()
	o = c.deploy("--resume")
	c.ends(o, 4)
	o.Says(c.T, "web2: done", "web3: done", "ferry: 4 nodes: 2 done, 1 unreachable, 1 rolled back\n")
	if strings.Contains(o.Errors, "web1:") {
		c.T.Error("web1 is deployed again")
	}
	c.member("web4").attributes = ""
	c.plan("one")
	o = c.deploy("--resume", "--unreachable", "skip")
	c.ends(o, 0)
	o.Says(c.T, "web4: done", "gone: skipped: connect: ", "ferry: 2 nodes: 1 done, 1 unreachable\n")
	c.member("web1").site.Want(c.member("web1").site.State(), before)

	// Some as asked and one not.
	o = c.deploy("--all")
	c.ends(o, 3)
	o.Says(c.T, "web1: same system, new configuration kept", "web4: nothing to do", "ferry: 5 nodes: 4 done, 1 unreachable\n")
	c.ends(c.deploy("--all", "!gone"), 0)
}

// aFailureIsTheirsWhoNeedIt has two nodes that need the same derivation, which fails, and one that goes on.
func aFailureIsTheirsWhoNeedIt(c *crew) {
	c.member("web2").more, c.member("web3").more = failsToBuild, failsToBuild
	c.plan("shared")
	o := c.deploy("web1", "web2", "web3")
	c.ends(o, 3)
	o.Says(c.T, "ferry: error: web2: build: broken failed with exit code 3", "ferry: error: web3: build: broken failed with exit code 3",
		"web1: done: generation ", "ferry: 3 nodes: 1 done, 2 failed (unchanged)\n")
	if n := strings.Count(o.Errors, "  nothing works\n"); n != 2 {
		c.T.Errorf("what the builder wrote last is shown %d times, want it for both:\n%s", n, o.Errors)
	}
	c.greet(map[string]string{"web1": "shared web1", "web2": "one web2", "web3": "one web3"})
	c.member("web2").more, c.member("web3").more = "", ""
}

// onePasswordForAll has a person at a terminal, who mistypes the password first.
func onePasswordForAll(c *crew) {
	c.plan("two")
	p := c.Person("deploy", "--all")
	p.Sees("sudo: password for alice on web1, web2, web3, web4: ")
	p.Types("mistyped\n")
	p.Sees("sudo: wrong password, try again: password for alice on web1, web2, web3, web4: ")
	p.Types(lab.Password + "\n")
	shown := p.Wants(0)
	if asked := strings.Count(shown, "password for "); asked != 2 {
		c.T.Errorf("it was asked %d times, want twice", asked)
	}
	if strings.Contains(shown, lab.Password) {
		c.T.Error("the password is shown")
	}
	c.greet(map[string]string{"web1": "two web1", "web2": "two web2", "web3": "two web3", "web4": "two web4"})
}

// batchesStop has a node of the second batch of three that does not pass its check.
func batchesStop(c *crew) {
	c.member("web2").attributes = failsItsCheck
	c.plan("three")
	// The order is that of the words.
	o := c.deploy("web3", "web1", "web2", "web4", "--batch", "1,2,rest", "--parallel", "2")
	c.ends(o, 4)
	o.Says(c.T, "ferry: batch 1 of 3: 1 node\n", "ferry: batch 2 of 3: 2 nodes\n", "ferry: 4 nodes: 2 done, 1 rolled back, 1 not begun\n",
		"ferry: not begun: web4\n", "ferry: hint: ferry deploy --resume")
	c.greet(map[string]string{"web3": "three web3", "web1": "three web1", "web2": "two web2", "web4": "two web4"})
	order := regexp.MustCompile(`(?m)^web\d: activate |^ferry: batch \d`).FindAllString(o.Errors, -1)
	if len(order) < 3 || order[0] != "ferry: batch 1" || order[1] != "web3: activate " || order[2] != "ferry: batch 2" {
		c.T.Errorf("it went in the order %q", order)
	}

	// A failure that is found before anything is changed leaves the first batch as it is, too.
	c.member("web2").attributes, c.member("web2").more = "", failsToBuild
	c.plan("four")
	o = c.deploy("--all", "--batch", "1")
	c.ends(o, 1)
	o.Says(c.T, "ferry: 4 nodes: 1 failed (unchanged), 3 not begun\n")
	c.greet(map[string]string{"web1": "three web1", "web4": "two web4"})

	c.member("web2").more = ""
	c.plan("four")
	o = c.deploy("--resume", "--batch", "50%", "--pause", "1s", "--parallel-activate", "1")
	c.ends(o, 0)
	o.Says(c.T, "ferry: batch 2 of 2: 2 nodes\n", "ferry: 4 nodes: 4 done\n")
}

func aBatchIsTakenBack(c *crew) {
	c.member("web4").attributes = "    checks.commands = [ { run = [ \"sh\" \"-c\" \"sleep 3; exit 1\" ]; } ];\n"
	c.plan("five")
	o := c.deploy("--all", "--rollback-batch", "--batch", "2")
	c.ends(o, 4)
	o.Says(c.T, "web3: rolled back: another node in its batch failed", "ferry: 4 nodes: 2 done, 2 rolled back\n")
	c.greet(map[string]string{"web1": "five web1", "web2": "five web2", "web3": "four web3", "web4": "four web4"})
}

// aSecondAddress has a node whose first address is not known, and one whose first address does not answer.
func aSecondAddress(c *crew) {
	for name, first := range map[string]string{"web3": "nowhere.invalid", "web4": "127.0.0.1"} {
		m := c.member(name)
		m.target = fmt.Sprintf(`[ "alice@%s" "alice@%s" ]`, first, m.site.Target.Name())
	}
	c.plan("six")
	o := c.deploy("web3", "web4")
	c.ends(o, 0)
	o.Says(c.T, "web3: note: not reached (ssh alice@nowhere.invalid: ", "): trying alice@"+c.member("web3").site.Target.Name(),
		"web4: note: not reached (ssh alice@127.0.0.1: ", "ferry: 2 nodes: 2 done\n")
	c.greet(map[string]string{"web3": "six web3", "web4": "six web4"})
}

// aNodeKnowsTheOthers has a configuration that asks for the other nodes'.
func aNodeKnowsTheOthers(c *crew) {
	plain := c.Toplevel(c.Bundle("web1"))
	c.plan("seven")
	c.Write("web2.nix", strings.Replace(strings.ReplaceAll(site.Configuration("knows NAME"), "NAME", "${nodes.web1.config.environment.etc.greeting.text} and ${nodes.web2.config.networking.hostName}"),
		"{ pkgs, ... }:", "{ pkgs, nodes, ... }:", 1))
	o := c.deploy("web1", "web2")
	c.ends(o, 0)
	c.greet(map[string]string{"web1": "seven web1", "web2": "knows seven web1 and web"})
	if c.Toplevel(c.Bundle("web1")) == plain {
		c.T.Error("web1 has not changed")
	}
	// Who does not ask is evaluated as by plain NixOS.
	drv := strings.TrimSpace(c.Must("nix-instantiate", c.Nixpkgs+"/nixos", "-A", "system", "--argstr", "system", c.nodes[0].site.Target.System(),
		"--arg", "configuration", c.Project+"/web1.nix"))
	if out := strings.TrimSpace(c.Must("nix-store", "--query", "--outputs", drv)); out != c.Toplevel(c.Bundle("web1")) {
		c.T.Errorf("plain NixOS makes %s of web1, ferry another one", out)
	}
}

// aNarrowedSourceIsLeftAlone has two nodes with sources of their own: an edit in the one's does not touch the other, whose check
// is a file in its source.
func aNarrowedSourceIsLeftAlone(c *crew) {
	for _, name := range []string{"web1", "web2"} {
		c.member(name).attributes = "    source = [ ./common ];\n    checks.commands = [ { run = [ \"sh\" ./check-" + name + ".sh ]; } ];\n"
		c.Write("check-"+name+".sh", "exit 0\n")
	}
	c.Write("common/motd.nix", `"common"`)
	c.plan("eight")
	c.ends(c.deploy("web1", "web2"), 0)
	if files := strings.Fields(c.Must("ls", c.Bundle("web1")+"/source/")); !slices.Equal(files, []string{"check-web1.sh", "common", "web1.nix"}) {
		c.T.Errorf("the source of web1 has %q", files)
	}
	before := c.member("web1").site.State()
	c.Write("web2.nix", site.Configuration("nine web2"))
	o := c.deploy("web1", "web2")
	c.ends(o, 0)
	o.Says(c.T, "web1: nothing to do", "web2: done: ")
	c.member("web1").site.Want(c.member("web1").site.State(), before)
	c.greet(map[string]string{"web2": "nine web2"})

	c.Write("check-web1.sh", "exit 1\n")
	c.Write("web1.nix", site.Configuration("nine web1"))
	o = c.deploy("web1")
	c.ends(o, 4)
	o.Says(c.T, "web1: check: command sh /nix/store/")
	c.greet(map[string]string{"web1": "eight web1"})
}
