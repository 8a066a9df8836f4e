package deploy_test

import (
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

const doas = "    elevate = \"doas\";\n"

// TestDoasIsGivenThePassword has a command that asks on a terminal and gives up after one wrong answer: what is true of sudo
// is true of it.
func TestDoasIsGivenThePassword(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{Suite: "trixie"}})
	s.Inventory(s.Node("dave@"+s.Target.Name(), doas))
	const first, again = "web: password for doas: ", "web: wrong password, try again: "
	before, logins := s.State(), s.Counts()
	p := s.Person("deploy")
	for _, prompt := range []string{first, again, again} {
		p.Sees(prompt)
		p.Types("a guess\n")
	}
	o := p.Ends()
	o.Says(t, "ferry: error: web: connect: doas: the password was wrong")
	if o.Status != 1 || strings.Count(o.Errors, "try again") != 2 || strings.Contains(o.Errors, "guess") {
		t.Errorf("status %d", o.Status)
	}
	s.Want(s.State(), before)
	if got, want := s.Counts().Minus(logins), (site.Counts{Logins: 1}); got != want {
		t.Errorf("%v, want %v", got, want)
	}

	logins = s.Counts()
	p = s.Person("--verbose", "deploy")
	p.Sees(first)
	p.Types("a guess\n")
	p.Sees(again)
	p.Types(lab.Password + "\n")
	o = p.Ends()
	o.Says(t, "web: done: generation 2")
	if o.Status != 0 || strings.Contains(o.Errors, "horse") || strings.Contains(o.Errors, "guess") {
		t.Errorf("status %d", o.Status)
	}
	if got, want := s.Counts().Minus(logins), (site.Counts{Logins: 3, Elevations: 1}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got := s.State(); got.Greeting != "first" || got.Boots != got.Runs {
		t.Errorf("the target is left as %+v", got)
	}
	s.Deploy().Says(t, "web: nothing to do")
}

// TestThePasswordForDoasIsNowhereWhileFerryRuns is the same hunt as with sudo.
func TestThePasswordForDoasIsNowhereWhileFerryRuns(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Alone: true})
	secret := "hunted-" + rand.Text()
	setPassword(s, "dave", secret)
	file := filepath.Join(s.Builder.Home(), "secret")
	if err := s.Builder.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Inventory(s.Node("dave@"+s.Target.Name(), doas))
	h := startHunt(secret)
	o := s.Ferry("--verbose", "deploy", "--sudo-password-file", file)
	if o.Status != 0 || strings.Contains(o.Out+o.Errors, secret) {
		t.Errorf("status %d, or it shows the password", o.Status)
	}
	grepFor(s, secret, file)
	if found, _ := h.stop(); len(found) > 0 {
		t.Errorf("the password is in %s", found)
	}
}

// TestALostConnectionIsMadeAgainWithDoas cuts it in the middle of a ship and of an activation. What hangs up a terminal must
// not end what goes on there.
func TestALostConnectionIsMadeAgainWithDoas(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	r.Relay = r.Relayed("dave", lab.RelayOptions{}, doas)
	for _, stage := range []site.Stage{site.OnWire("ship", site.Shipped/2), site.OnTarget("activate")} {
		t.Run(stage.Name, func(t *testing.T) {
			r := r.In(t)
			greeting := r.Rewrite()
			stage.Begin(r)
			p := r.Person("deploy")
			p.Sees("web: password for doas: ")
			p.Types(lab.Password + "\n")
			r.Await(stage)
			r.Relay.Cut()
			stage.Release(r)
			o := p.Ends()
			defer r.NothingRuns()
			o.Says(t, "web: note: connection lost (", "web | activate: one\n", "web | activate: two\n", "web: done: ")
			if n := strings.Count(o.Errors, "password for doas"); o.Status != 0 || n != 1 {
				t.Errorf("status %d, the password was asked for %d times", o.Status, n)
			}
			if got := r.OnTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("the target greets with %q, want %q", got, greeting)
			}
		})
	}
}

// TestAMachineDeploysItselfWithDoas has target = "local": the terminal is one of ferry's own making.
func TestAMachineDeploysItselfWithDoas(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Inventory(s.Node("local", doas))
	before := s.Counts()
	ferry := settle(s, "dave", "/home/dave")
	deploy := ferry("deploy", "--yes")
	deploy.Sees("web: password for doas: ")
	deploy.Types("not this one\n")
	deploy.Sees("web: wrong password, try again: ")
	deploy.Types(lab.Password + "\n")
	if shown := deploy.Wants(0); strings.Contains(shown, lab.Password) || !strings.Contains(shown, "web: done: generation 2, ") {
		t.Error("it shows the password, or not that it is done")
	}
	if got, want := s.Counts().Minus(before), (site.Counts{Elevations: 1}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if shown := ferry("deploy", "--yes", "--sudo-password-file", "/home/dave/password").Wants(0); !strings.Contains(shown, "web: nothing to do: this machine has ") {
		t.Error("it does not say that there is nothing to do")
	}
}

// TestAServerThatGivesNoTerminal lets in a doas that does not ask, and says what is in the way of one that does.
func TestAServerThatGivesNoTerminal(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.OnTarget("sh", "-c", "sed -i '1i PermitTTY no' /etc/ssh/sshd_config && systemctl restart sshd")
	s.Inventory(s.Node("dave@"+s.Target.Name(), doas))
	s.Ferry("deploy", "--sudo-password-file", s.Password).Fails(t, 1, "web: connect: doas: doas wants to ask for a password on a terminal", "PermitTTY")
	s.Inventory(s.Node("dora@"+s.Target.Name(), doas))
	if o := s.Ferry("deploy"); o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
}
