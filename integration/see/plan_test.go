package see_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ferry/integration/site"
)

// planned is what ferry plan --json prints.
type planned struct {
	comparison
	Nothing    bool
	SameSystem bool `json:"same_system"`
	Ship       struct {
		Paths []string
		Bytes int
		Wire  int

		Seconds   float64
		PerSecond int `json:"bytes_per_second"`
	}
	Warnings []string
}

func planOf(s *site.Site, args ...string) planned {
	s.T.Helper()
	o := s.Ferry(append([]string{"plan", "--json"}, args...)...)
	var p planned
	if err := json.Unmarshal([]byte(o.Out), &p); o.Status != 0 || err != nil {
		s.T.Fatalf("status %d, %v", o.Status, err)
	}
	return p
}

// TestPlanSaysWhatADeploymentThenDoes plans, deploys and compares, from the first deployment on.
func TestPlanSaysWhatADeploymentThenDoes(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	installed := s.State()
	s.Ferry("plan").Fails(t, 1, "web: connect: sudo asks for a password, and there is no terminal to ask on", "--sudo-password-file or --sudo-password-command")
	first := planOf(s, "--sudo-password-file", s.Password)
	if first.Before.Toplevel != installed.Runs || len(first.Warnings) != 0 || !slices.Equal(first.System.Units.Restart, []string{"greeter.service"}) {
		t.Errorf("%+v", first)
	}
	s.Want(s.State(), installed)
	wantShipped(s, first, s.Deploy())
	now := s.State()

	s.Write("web/configuration.nix", site.With(site.Configuration("second"), `
  systemd.services.comes = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000"; };
`+site.Data("plan", 2, 700_000)))
	before := s.Counts()
	p := planOf(s)
	if got, want := s.Counts().Minus(before), (site.Counts{Logins: 1}); got != want {
		t.Errorf("a plan took %v, want %v", got, want)
	}
	s.Want(s.State(), now)
	if p.Before.Toplevel != now.Runs || !slices.Equal(p.System.Units.Start, []string{"comes.service"}) || p.Ship.Bytes < 1_400_000 || p.Ship.Seconds != 0 || p.Nothing || p.SameSystem {
		t.Errorf("%+v", p)
	}
	text := s.Ferry("plan", "web").Out
	if !strings.Contains(text, fmt.Sprintf(" to send: %s in %d paths", size(p.Ship.Bytes), len(p.Ship.Paths))) ||
		!strings.Contains(text, "  units started     comes.service\n") {
		t.Error("it does not say that")
	}
	wantShipped(s, p, s.Deploy())
	if s.State().Runs != p.After.Toplevel {
		t.Error("another system was deployed")
	}
	if p = planOf(s); !p.Nothing || len(p.Ship.Paths) != 0 {
		t.Errorf("after it: %+v", p)
	}
	if o := s.Ferry("plan"); !strings.HasPrefix(o.Out, "web: nothing to do: the target has nixos-system-web-") {
		t.Error("it does not say so")
	}
	s.Write("web/note", "only the source is another one\n")
	if p = planOf(s); p.Nothing || !p.SameSystem || p.Ship.Seconds <= 0 || p.Ship.PerSecond <= 0 {
		t.Errorf("with another note: %+v", p)
	}
	if text := strings.Join(strings.Fields(s.Ferry("plan").Out), " "); !strings.Contains(text, "/s of the last time") {
		t.Error("it does not say how long that takes")
	}

	t.Run("reboot", func(t *testing.T) {
		s := s.In(t)
		s.Write("web/configuration.nix", site.With(site.Configuration("second"), `system.initInterfaceVersion = "9";
  environment.etc."fstab".text = "/dev/x /data ext4 ro 0 0\n"; systemd.user.units."hello.service".text = "[Service]\n";`))
		p := planOf(s)
		if !strings.HasPrefix(p.NeedsReboot, "its init is of another kind than the one that runs") {
			t.Errorf("%q", p.NeedsReboot)
		}
		o := s.Ferry("plan")
		if !strings.Contains(o.Out, "  needs a reboot    its init is of another kind than the one that runs") ||
			!strings.Contains(o.Out, "  mounts            /data added\n") || !strings.Contains(o.Out, "  user units        hello.service added\n") {
			t.Error("it does not say so")
		}
	})
	t.Run("a system of somebody else's", func(t *testing.T) {
		s := s.In(t)
		s.OnTarget("nix-env", "-p", "/nix/var/nix/profiles/system", "--set", installed.Runs)
		s.OnTarget(installed.Runs+"/bin/switch-to-configuration", "switch")
		if p := planOf(s); len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "which no deployment of ferry's left there") {
			t.Errorf("%q", p.Warnings)
		}
	})
}

// shipped is how a deployment says what it has sent.
var shipped = regexp.MustCompile(`web: ship      (\S+ .?B) as (\S+) (.?B), (\d+) paths?`)

// wantShipped fails the test unless a deployment has shipped what was planned, in bytes within a tenth.
func wantShipped(s *site.Site, p planned, o site.Outcome) {
	s.T.Helper()
	m := shipped.FindStringSubmatch(o.Errors)
	if m == nil || m[1] != size(p.Ship.Bytes) || m[4] != fmt.Sprint(len(p.Ship.Paths)) {
		s.T.Errorf("planned were %s in %d paths, not %q", size(p.Ship.Bytes), len(p.Ship.Paths), m)
		return
	}
	sent, err := strconv.ParseFloat(m[2], 64)
	if err != nil {
		s.T.Fatal(err)
	}
	sent *= map[string]float64{"B": 1, "kB": 1e3, "MB": 1e6}[m[3]]
	if planned := float64(p.Ship.Wire); planned < 0.9*sent || planned > 1.1*sent {
		s.T.Errorf("planned were %.0f bytes to send, and it were %.0f", planned, sent)
	}
}

// size is a number of bytes as ferry writes it, of those that occur here.
func size(n int) string {
	switch value := float64(n) / 1000; {
	case value >= 999.5:
		return fmt.Sprintf("%.1f MB", value/1000)
	case value >= 9.95:
		return fmt.Sprintf("%.0f kB", value)
	default:
		return fmt.Sprintf("%.1f kB", value)
	}
}

// TestADeploymentAtATerminalIsAskedFor says no, and then yes.
func TestADeploymentAtATerminalIsAskedFor(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	p := s.AtTerminal(s.Command("deploy", "--sudo-password-file", s.Password))
	p.Sees("  units restarted   greeter.service")
	p.Sees("deploy this? [y/N] ")
	p.Types("n\n")
	if shown := p.Wants(1); !strings.Contains(shown, "ferry: error: web: connect: cancelled; nothing was changed") {
		t.Error("it does not say that nothing was changed")
	}
	s.Want(s.State(), before)
	p = s.AtTerminal(s.Command("deploy", "--sudo-password-file", s.Password))
	p.Sees("deploy this? [y/N] ")
	p.Types("y\n")
	p.Wants(0)
	if s.State().Greeting != "first" {
		t.Error("nothing was deployed")
	}
	// Nothing is asked where there is nothing to do.
	p = s.AtTerminal(s.Command("deploy", "--sudo-password-file", s.Password))
	if shown := p.Wants(0); strings.Contains(shown, "deploy this?") {
		t.Error("it asks for nothing")
	}
}
