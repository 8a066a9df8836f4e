package fleet_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// plansAreShownAndAgreedToOnce plans nodes of which one fails and one gets nothing but a configuration, and then asks a person, who says no first.
func plansAreShownAndAgreedToOnce(c *crew) {
	for _, name := range []string{"web1", "web3", "web4"} {
		c.member(name).more = fmt.Sprintf("environment.etc.%q.text = %q;", "planned", name)
	}
	c.member("web2").more = failsToEvaluate
	c.plan("two")
	before := c.member("web4").site.State()
	o := c.Ferry("plan", "web4", "web2", "web1")
	c.ends(o, 3)
	if shown := regexp.MustCompile(`(?m)^\S+: `).FindAllString(o.Out, -1); strings.Join(shown, "") != "web4: web1: " {
		c.T.Errorf("the plans of %q are shown", shown)
	}
	if strings.Count(o.Out, "  /etc added        planned\n") != 2 {
		c.T.Error("it does not say what is added")
	}
	o.Says(c.T, "ferry: error: web2: evaluate: not today", "ferry: error: no plan for 1 of 3 nodes")

	o = c.Ferry("plan", "--json", "web4", "web2", "web1")
	c.ends(o, 3)
	decoder := json.NewDecoder(strings.NewReader(o.Out))
	for _, name := range []string{"web4", "web2", "web1"} {
		var p struct {
			Node  string
			Ship  *struct{ Wire int }
			Error *struct{ Step, Message string }
		}
		if err := decoder.Decode(&p); err != nil {
			c.T.Fatal(err)
		}
		failed := name == "web2"
		if p.Node != name || (p.Error != nil) != failed || (p.Ship != nil) == failed || failed && p.Error.Step != "evaluate" {
			c.T.Errorf("for %s there is %+v", name, p)
		}
	}
	c.member("web4").site.Want(c.member("web4").site.State(), before)

	c.member("web2").more = ""
	c.plan("two")
	for _, answer := range []struct {
		types  string
		status int
		says   string
	}{
		{"n", 1, "ferry: 4 nodes: 4 not begun"},
		{"y", 0, "ferry: 4 nodes: 4 done"},
	} {
		p := c.AtTerminal(c.Command("deploy", "--all", "--sudo-password-file", c.Password))
		p.Sees("deploy these 4 nodes? [y/N] ")
		p.Types(answer.types + "\n")
		shown := p.Wants(answer.status)
		asked := strings.Count(shown, "[y/N]")
		planned := regexp.MustCompile(`web\d: from what runs`).FindAllString(shown, -1)
		if asked != 1 || len(planned) != 4 || !strings.Contains(shown, answer.says) ||
			strings.Count(shown, "  activation        none: only the configuration") != 1 {
			c.T.Errorf("it asks %d times, plans %q, and has to say %q", asked, planned, answer.says)
		}
		if changed := c.member("web4").site.State().Runs != before.Runs; changed != (answer.status == 0) {
			c.T.Errorf("after the answer %q: changed is %v", answer.types, changed)
		}
	}
}
