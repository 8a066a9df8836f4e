package see_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// nodeStatus is what of ferry status --json is looked at.
type nodeStatus struct {
	Node, Target, Attention, Error, Version, Revision, Relation string
	Points                                                      []struct{ Attention, Text string }
	Reached, Dirty                                              bool
	Behind, Ahead, Generation                                   int
	Deployed                                                    *struct{ Time, Who, From, Action string }
	Last                                                        *struct{ Who, Action, Outcome, Reason string }
	Current, Default, Booted                                    string
	Reboot, Failed                                              []string
	FailedKnown                                                 bool   `json:"failed_known"`
	StoreFree                                                   int64  `json:"store_free"`
	BootFree                                                    int64  `json:"boot_free"`
	NixpkgsRevision                                             string `json:"nixpkgs_revision"`
	NixpkgsDate                                                 string `json:"nixpkgs_date"`
	Armed                                                       *struct{ Toplevel, Who, Phase string }
	Lock                                                        *struct{ Who, From, Since string }
}

// says tells whether the node has a point that begins so.
func (s nodeStatus) says(attention, text string) bool {
	for _, p := range s.Points {
		if p.Attention == attention && strings.HasPrefix(p.Text, text) {
			return true
		}
	}
	return false
}

// statusOf is what ferry status --json prints: the nodes by name, and their names in its order.
func statusOf(s *site.Site, status int, args ...string) (map[string]nodeStatus, string) {
	s.T.Helper()
	o := s.Ferry(append([]string{"status", "--json"}, args...)...)
	var all struct{ Nodes []nodeStatus }
	if err := json.Unmarshal([]byte(o.Out), &all); o.Status != status || err != nil {
		s.T.Fatalf("status %d, %v", o.Status, err)
	}
	nodes, order := map[string]nodeStatus{}, []string{}
	for _, n := range all.Nodes {
		nodes[n.Node] = n
		order = append(order, n.Node)
	}
	return nodes, strings.Join(order, " ")
}

// git runs git in the project.
func git(s *site.Site, args ...string) string {
	s.T.Helper()
	return strings.TrimSpace(s.Must("git", append([]string{"-C", s.Project, "-c", "user.name=Test", "-c", "user.email=test@example.com"}, args...)...))
}

// fitsTerminal fails the test for a line that is wider than a table may be.
func fitsTerminal(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > 80 || !site.Visible.MatchString(line) {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

// fleet is several targets of one project: web, and db, which is reached as bob, whose sudo needs no password; new is one that
// ferry was never at, and nobody answers at away.
type fleet struct {
	*site.Site
	db, new *site.Site
}

// nixpkgsCommit is what the fleet's pin calls its nixpkgs, whose tree does not say it.
const nixpkgsCommit = "0123456789abcdef0123456789abcdef01234567"

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{Site: site.New(t, site.Options{}), db: site.New(t, site.Options{}), new: site.New(t, site.Options{})}
	node := func(name, target string) string {
		return fmt.Sprintf("  nodes.%s = {\n%s  };\n", name, f.Node(target))
	}
	pin := fmt.Sprintf("fetchTarball { url = \"https://nixpkgs.example/archive/%s.tar.gz\"; sha256 = %q; }", nixpkgsCommit,
		strings.TrimPrefix(strings.TrimSpace(f.Must("nix-store", "--query", "--hash", f.Nixpkgs)), "sha256:"))
	f.Write("ferry.nix", fmt.Sprintf("{\n  nixpkgs = %s;\n", pin)+node("web", "alice@"+f.Target.Name())+node("db", "bob@"+f.db.Target.Name())+
		node("new", "alice@"+f.new.Target.Name())+node("away", "ssh://alice@"+f.Target.Name()+":9")+"}\n")
	git(f.Site, "init", "--quiet")
	git(f.Site, "add", ".")
	git(f.Site, "commit", "--quiet", "--message=first")
	return f
}

// TestStatusShowsWhatRunsWhere has a node in each state that is cheap to make, and asks all of them at once.
func TestStatusShowsWhatRunsWhere(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	first := git(f.Site, "rev-parse", "HEAD")
	f.Deploy("web")
	git(f.Site, "commit", "--quiet", "--allow-empty", "--message=second")
	second := git(f.Site, "rev-parse", "HEAD")
	f.Deploy("db")

	t.Run("each node in its state", func(t *testing.T) {
		s := f.In(t)
		before := f.Counts()
		nodes, order := statusOf(s, 1)
		if order != "away new web db" {
			t.Errorf("the order is %s", order)
		}
		if got, want := f.Counts().Minus(before), (site.Counts{Logins: 1}); got != want {
			t.Errorf("to look at web: %v, want %v", got, want)
		}
		if n := nodes["away"]; n.Reached || !strings.Contains(n.Error, "refused") || !n.says("error", "ssh ssh://alice@") {
			t.Errorf("%+v", n)
		}
		if n := nodes["new"]; n.Reached || !n.says("error", "sudo asks for a password, and there is nobody to ask") {
			t.Errorf("%+v", n)
		}
		web, state := nodes["web"], f.State()
		if web.Revision != first || web.Relation != "behind" || web.Behind != 1 || web.Attention != "note" || web.Dirty || len(web.Points) != 0 {
			t.Errorf("%+v", web)
		}
		if web.Current != state.Runs || web.Default != state.Runs || web.Booted == state.Runs || web.Generation != 2 || !web.FailedKnown || len(web.Failed) != 0 {
			t.Errorf("%+v", web)
		}
		if !strings.HasSuffix(web.Version, "pre-git") || web.NixpkgsRevision != nixpkgsCommit || nodes["db"].NixpkgsRevision != nixpkgsCommit || web.NixpkgsDate != "" {
			t.Errorf("%s: nixpkgs %q of %q", web.Version, web.NixpkgsRevision, web.NixpkgsDate)
		}
		if web.StoreFree == 0 || web.BootFree == 0 || web.Version != s.OnTarget("cat", state.Runs+"/nixos-version") {
			t.Errorf("%+v", web)
		}
		if d, l := web.Deployed, web.Last; d == nil || l == nil || !strings.Contains(d.Who, "@") || d.Action != "switch" || d.From == "" || d.Time == "" || l.Outcome != "committed" {
			t.Errorf("%+v, %+v", d, l)
		}
		if db := nodes["db"]; db.Revision != second || db.Relation != "equal" || db.Attention != "" || db.Armed != nil || db.Lock != nil {
			t.Errorf("%+v", db)
		}
	})

	t.Run("as people see it", func(t *testing.T) {
		o := f.In(t).Ferry("status")
		fitsTerminal(t, o.Out)
		o.Says(t, "ferry: error: 2 of 4 nodes could not be asked: away, new")
		for _, want := range []string{"away ", "  error: ssh ssh://alice@", "\nnew ", "web ", nixpkgsCommit[:7] + "  " + first[:7] + " behind 1", second[:7] + " equal"} {
			if !strings.Contains(o.Out, want) {
				t.Errorf("no %q in\n%s", want, o.Out)
			}
		}
		if o.Status != 1 {
			t.Errorf("status %d", o.Status)
		}
	})

	t.Run("only those that are chosen", func(t *testing.T) {
		if _, order := statusOf(f.In(t), 0, "db", "we*"); order != "web db" {
			t.Errorf("the order is %s", order)
		}
		if _, order := statusOf(f.In(t), 0, "!away", "!new"); order != "web db" {
			t.Errorf("the order is %s", order)
		}
	})

	t.Run("nodes are completed", func(t *testing.T) {
		for command, want := range map[string]string{"status": "!db\tbob@", "check": "!db\tbob@", "history": ""} {
			o := f.In(t).Ferry("__complete", command, "!d")
			if !strings.HasPrefix(o.Out, want) || want == "" && strings.Contains(o.Out, "bob") {
				t.Errorf("%s completes to %q", command, o.Out)
			}
		}
	})

	t.Run("a person is asked where that is needed", func(t *testing.T) {
		p := f.In(t).Person("status", "db", "new")
		p.Sees("new: password for sudo: ")
		p.Types("\x04")
		if shown := p.Wants(1); !strings.Contains(shown, "  error: nobody gave a password") || !strings.Contains(shown, "ferry: error: 1 of 2 nodes could not be asked: new") {
			t.Errorf("%s", shown)
		}
	})

	t.Run("once the agent is there nobody is asked", func(t *testing.T) {
		s := f.In(t)
		if nodes, _ := statusOf(s, 0, "new", "--sudo-password-file", s.Password); !nodes["new"].Reached {
			t.Errorf("%+v", nodes["new"])
		}
		nodes, _ := statusOf(s, 0, "new", "db")
		if n := nodes["new"]; n.Deployed != nil || n.Revision != "" || n.Relation != "not comparable" || n.Attention != "note" || n.Current == "" {
			t.Errorf("%+v", n)
		}
	})

	t.Run("a unit that failed", func(t *testing.T) {
		s := f.db.In(t)
		s.OnTarget("sh", "-c", "systemd-run --quiet --unit=broken false; until systemctl --quiet is-failed broken; do sleep 0.05; done")
		nodes, order := statusOf(f.In(t), 0, "web", "db")
		if n := nodes["db"]; order != "db web" || n.Attention != "error" || strings.Join(n.Failed, " ") != "broken.service" || !n.says("error", "1 unit failed: broken.service") {
			t.Errorf("%s: %+v", order, n)
		}
		s.OnTarget("systemctl", "reset-failed", "broken")
	})

	t.Run("a deployment that has not come to its switch", func(t *testing.T) {
		s := f.In(t)
		s.OnTarget("sh", "-c", `systemd-run --quiet --unit=held sh -c 'sleep 600 | /var/lib/ferry/agent-* serve --as carol@there --session held --lock'
			until grep -q carol /run/ferry/lock; do sleep 0.05; done`)
		nodes, _ := statusOf(s, 0, "web")
		if n := nodes["web"]; n.Lock == nil || n.Lock.Who != "carol@there" || n.Lock.Since == "" || n.Armed != nil || !n.says("note", "carol@there is deploying to this target since ") {
			t.Errorf("%+v, %+v", n, n.Lock)
		}
		checked(s, "--quick", "--sudo-password-file", s.Password, "web").are(t, "web lock error: carol@there")
		s.OnTarget("systemctl", "stop", "held")
		if nodes, _ := statusOf(s, 0, "web"); nodes["web"].Lock != nil {
			t.Errorf("%+v", nodes["web"].Lock)
		}
	})
	t.Run("a switch that goes on", f.aSwitchGoesOn)
	t.Run("a deployment that went back", f.aDeploymentWentBack)
	t.Run("a system that waits for the boot", f.aSystemWaits)
}

// TestStatusAsksAllNodesAtOnce keeps every login of twenty nodes from going on until all have begun.
func TestStatusAsksAllNodesAtOnce(t *testing.T) {
	t.Parallel()
	const n = 20
	s := site.New(t, site.Options{Login: "bob"})
	relay := s.Relayed("bob", lab.RelayOptions{})
	more := ""
	for i := range n - 1 {
		more += fmt.Sprintf("  nodes.web%d = nodes.web;\n", i)
	}
	inventory := strings.Replace(s.Must("cat", s.Project+"/ferry.nix"), "{\n", "rec {\n"+more, 1)
	s.Write("ferry.nix", inventory)
	relay.Freeze()
	before := relay.Traffic().Connections
	_, ended := s.Background("status", "--json")
	site.Until(t, "all logins have begun", func() bool { return relay.Traffic().Connections-before >= n })
	relay.Thaw()
	if o := ended(); o.Status != 0 || strings.Count(o.Out, `"reached": true`) != n {
		t.Errorf("status %d, and %d nodes are reached", o.Status, strings.Count(o.Out, `"reached": true`))
	}
}

func (f *fleet) aSwitchGoesOn(t *testing.T) {
	s := f.In(t)
	s.Write("web/configuration.nix", site.With(site.Configuration("second"), site.Holds()))
	s.OnTarget("touch", "/run/hold-activate")
	_, ended := s.Background("deploy", "--sudo-password-file", s.Password, "web")
	site.Until(t, "it is being activated", func() bool { return s.OnTarget("sh", "-c", "ls /run/at-activate 2>/dev/null; true") != "" })
	nodes, _ := statusOf(s, 0, "web")
	web := nodes["web"]
	if a := web.Armed; a == nil || a.Phase != "activating" || !strings.Contains(a.Toplevel, "nixos-system-web") || !strings.Contains(a.Who, "@") {
		t.Errorf("armed: %+v", a)
	}
	if l := web.Lock; l == nil || !strings.Contains(l.Who, "@") || l.Since == "" || l.From == "" {
		t.Errorf("the lock: %+v", l)
	}
	if !web.says("warning", "a switch to nixos-system-web") {
		t.Errorf("%+v", web.Points)
	}
	s.OnTarget("rm", "/run/hold-activate")
	if o := ended(); o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	nodes, _ = statusOf(s, 0, "web")
	if n := nodes["web"]; n.Armed != nil || n.Lock != nil || !n.Dirty || n.Relation != "equal" {
		t.Errorf("%+v", n)
	}
}

func (f *fleet) aDeploymentWentBack(t *testing.T) {
	s := f.In(t)
	s.Write("web/configuration.nix", site.With(site.Configuration("third"), `system.activationScripts.broken = "false";`))
	if o := s.Ferry("deploy", "--sudo-password-file", s.Password, "web"); o.Status != 4 {
		t.Fatalf("status %d", o.Status)
	}
	nodes, _ := statusOf(s, 0, "web")
	if n := nodes["web"]; n.Attention != "warning" || !n.says("warning", "the last deployment by ") || n.Last.Outcome != "rolled back" || n.Last.Reason == "" || n.Current != n.Default {
		t.Errorf("%+v", n)
	}
}

func (f *fleet) aSystemWaits(t *testing.T) {
	s := f.In(t)
	s.Write("web/configuration.nix", site.Configuration("fourth"))
	s.Deploy("--action", "boot", "web")
	nodes, _ := statusOf(s, 0, "web")
	if n := nodes["web"]; n.Attention != "warning" || n.Current == n.Default || !n.says("warning", "the next boot brings another system: generation 4, nixos-system-web") {
		t.Errorf("%+v", n)
	}
	s.Reboot()
	nodes, _ = statusOf(s, 0, "web")
	if n := nodes["web"]; n.Attention != "" || n.Current != n.Default || n.Booted != n.Current || n.Deployed == nil || n.Deployed.Action != "boot" {
		t.Errorf("%+v", n)
	}
}
