package safe_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestATargetThatCannotBeReachedAnyMoreGoesBack deploys configurations that take the target away from whoever deploys.
func TestATargetThatCannotBeReachedAnyMoreGoesBack(t *testing.T) {
	t.Parallel()
	eachLogin(t, func(t *testing.T, x *trial) {
		gateway := x.Target.Gateway().String()
		for _, c := range []struct{ name, more string }{
			{"an address that is another's", `networking.interfaces.host0.ipv4.addresses = [ { address = "192.0.2.7"; prefixLength = 24; } ];`},
			{"a route that swallows what goes to ferry", service("ip route replace blackhole " + gateway + "/32")},
			{"an interface that is taken down", service("ip link set host0 down")},
			{"an sshd that is stopped behind the system's back", service("systemctl --no-block stop sshd")},
			{"an sshd that is killed with all its connections", service("systemctl --no-block stop sshd; pkill -x sshd")},
			{"no sshd", "# no sshd"},
		} {
			t.Run(c.name, func(t *testing.T) {
				x := x.in(t)
				before := x.State()
				x.rewrite(c.more)
				if c.name == "no sshd" {
					x.withoutSSHD()
				}
				o := x.deploys(quickly, "--allow-lockout")
				if o.Status != 4 {
					t.Errorf("status %d", o.Status)
				}
				o.Says(t, ": ferry could not come back over a new connection within 3s", "; the target rolled back to ", "ferry: hint: the whole log is on the target: /run/ferry/")
				x.is(before)
			})
		}
		greeting := x.rewrite("")
		x.Deploy()
		x.isNew(greeting)
	})
}

// service is the part of a configuration that runs a command once.
func service(command string) string {
	return fmt.Sprintf(`systemd.services.once = { wantedBy = [ "multi-user.target" ]; serviceConfig.Type = "oneshot"; path = [ "/usr" "/" ]; script = %q; };`, command)
}

// withoutSSHD takes the line that has sshd out of the configuration.
func (x *trial) withoutSSHD() {
	x.T.Helper()
	text := x.Must("cat", x.Project+"/web/configuration.nix")
	x.Write("web/configuration.nix", strings.Replace(text, "services.openssh.enable = true;", "services.openssh.enable = false;", 1))
}

// TestALinkThatGoesDownInTheMiddle pulls the cable while the target activates. ferry is not needed there to go back, and tells
// what became of it when the link is up again.
func TestALinkThatGoesDownInTheMiddle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		back   bool
		status int
		says   string
	}{
		"and comes back when all is over": {true, 4, "ferry could not come back over a new connection within 3s"},
		"and never comes back":            {false, 5, "ferry: hint: it rolls back by itself unless it is confirmed in time: ferry attach web follows it again\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTrial(t, "alice", lab.Options{})
			before := x.State()
			x.rewrite("")
			_, ended := x.begin(activate, quickly)
			if err := x.Target.LinkDown(t.Context()); err != nil {
				t.Fatal(err)
			}
			x.goOn(activate)
			x.goesBack()
			up := func() {
				if err := x.Target.LinkUp(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if c.back {
				up()
			}
			o := ended()
			if o.Status != c.status {
				t.Errorf("status %d, want %d", o.Status, c.status)
			}
			o.Says(t, c.says)
			x.is(before)
			if !c.back {
				up()
			}
			greeting := x.rewrite("")
			x.Deploy()
			x.isNew(greeting)
		})
	}
}

// TestALinkThatIsBackInTimeDoesNoHarm pulls the cable while the target activates, and plugs it in while it waits.
func TestALinkThatIsBackInTimeDoesNoHarm(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	greeting := x.rewrite("")
	_, ended := x.begin(activate)
	if err := x.Target.LinkDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.goOn(activate)
	x.Await(confirm)
	if err := x.Target.LinkUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := ended(); o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	x.isNew(greeting)
}

// goesBack waits until the target has gone back from the switch that was begun last.
func (x *trial) goesBack() {
	x.T.Helper()
	x.ends("rolled back")
}

// ends waits until the switch that was begun last has ended, and fails the test unless its outcome is as wanted.
func (x *trial) ends(outcome string) {
	x.T.Helper()
	x.until("the switch has ended", func() string {
		return x.OnTarget("sh", "-c", "cat "+folder+"/status 2>/dev/null; true")
	}, fmt.Sprintf(`"outcome":%q`, outcome))
}
