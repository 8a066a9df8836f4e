package see_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// finding is one that ferry check --json prints.
type finding struct {
	Node, About, Attention, Text string
	Fixes                        []string
}

// findings are those that ferry check --json prints, with what is well left out.
type findings []finding

// checked runs ferry check, which has to end with 1 if it says that something would fail, else with 0.
func checked(s *site.Site, args ...string) findings {
	s.T.Helper()
	o := s.Ferry(append([]string{"check", "--json"}, args...)...)
	var all struct {
		Well     bool
		Findings findings
	}
	if err := json.Unmarshal([]byte(o.Out), &all); err != nil {
		s.T.Fatalf("status %d, %v", o.Status, err)
	}
	var asked findings
	failing := 0
	for _, f := range all.Findings {
		if f.Attention == "error" {
			failing++
		}
		if f.Attention != "" {
			asked = append(asked, f)
		}
		if f.Attention == "error" && len(f.Fixes) == 0 && f.About != "evaluation" {
			s.T.Errorf("no fix: %+v", f)
		}
	}
	if want := map[bool]int{true: 0, false: 1}[failing == 0]; o.Status != want || all.Well != (failing == 0) {
		s.T.Errorf("status %d, well %v, and %d things would fail", o.Status, all.Well, failing)
	}
	return asked
}

// are fails the test unless the findings are these, in any order: "node about attention: beginning of the text".
func (list findings) are(t *testing.T, want ...string) {
	t.Helper()
	left := append(findings{}, list...)
	for _, w := range want {
		found := -1
		for i, f := range left {
			if strings.HasPrefix(fmt.Sprintf("%s %s %s: %s", f.Node, f.About, f.Attention, f.Text), w) {
				found = i
			}
		}
		if found < 0 {
			t.Errorf("not found: %s", w)
			continue
		}
		left = append(left[:found:found], left[found+1:]...)
	}
	for _, f := range left {
		t.Errorf("also found: %+v", f)
	}
}

// about is the finding about something, which has to say what to do.
func (list findings) about(t *testing.T, about string) finding {
	t.Helper()
	for _, f := range list {
		if f.About == about && len(f.Fixes) > 0 {
			return f
		}
	}
	t.Fatalf("nothing to do about %s in %+v", about, list)
	return finding{}
}

// fix is the first fix of the finding about something.
func (list findings) fix(t *testing.T, about string) string {
	t.Helper()
	return list.about(t, about).Fixes[0]
}

// doesOnTarget does there what a fix says.
func doesOnTarget(s *site.Site, fix string) {
	s.T.Helper()
	command, is := strings.CutPrefix(fix, "on the target: sudo ")
	if !is {
		s.T.Fatalf("no command for the target: %s", fix)
	}
	s.OnTarget("sh", "-c", command)
}

// TestCheckFindsWhatIsWrong makes one fault after another on a target that a system is deployed to, and where a fix can be tried,
// does what it says.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Deploy()
	alice, password := s.Node("alice@"+s.Target.Name()), []string{"--sudo-password-file", s.Password}
	quick := append([]string{"--quick"}, password...)

	t.Run("nothing", func(t *testing.T) {
		s := s.In(t)
		before := s.State()
		checked(s, password...).are(t)
		o := s.Ferry(append([]string{"check", "web"}, password...)...)
		fitsTerminal(t, o.Out)
		for _, want := range []string{"here\n  ok: nix (Nix ", "builds for x86_64-linux (a test build works)", "\nweb\n  ok: ssh (alice@", "sudo (takes the password)", "0 B to ship"} {
			if text := strings.Join(strings.Fields(o.Out), " "); !strings.Contains(text, strings.Join(strings.Fields(want), " ")) {
				t.Errorf("no %q in\n%s", want, o.Out)
			}
		}
		s.Want(s.State(), before)
	})
	t.Run("nobody to ask for a password", func(t *testing.T) {
		// The rest is known all the same: the agent is there.
		s := s.In(t)
		s.OnTarget("rm", "/nix/var/nix/gcroots/ferry/current-configuration")
		list := checked(s, "--quick")
		list.are(t, "web sudo error: sudo asks for a password, and there is no", "web roots warning: the bundle may be collected")
		doesOnTarget(s, list.fix(t, "roots"))
		checked(s, quick...).are(t)
	})
	t.Run("a user who may not use sudo", func(t *testing.T) {
		s := s.In(t)
		s.Inventory(s.Node("carol@" + s.Target.Name()))
		checked(s, quick...).are(t, "web sudo error: sudo: the user may not ")
		s.Inventory(alice)
	})
	t.Run("a host key that is not known", func(t *testing.T) {
		s := s.In(t)
		config := filepath.Join(s.Builder.Home(), "strange-ssh-config")
		if err := s.Builder.WriteFile(config, []byte("UserKnownHostsFile /dev/null\nInclude "+s.Builder.Home()+"/.ssh/config\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		list := checked(s, append([]string{"--ssh-config", config}, quick...)...)
		list.are(t, "web ssh error: ssh alice@"+s.Target.Name()+": the host key is not known")
		if fix := list.fix(t, "ssh"); !strings.Contains(fix, "connect once by hand") {
			t.Errorf("fix: %s", fix)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		s := s.In(t)
		s.Inventory(s.Node("ssh://alice@" + s.Target.Name() + ":9"))
		checked(s, quick...).are(t, "web ssh error: ssh ssh://alice@")
		s.Inventory(alice)
	})
	t.Run("something in the way of the link", func(t *testing.T) {
		s := s.In(t)
		s.OnTarget("sh", "-c", "cp -P /etc/nixos/current-configuration /root/kept; rm /etc/nixos/current-configuration; mkdir /etc/nixos/current-configuration")
		list := checked(s, quick...)
		list.are(t, "web roots warning: /etc/nixos/current-configuration is in the way")
		doesOnTarget(s, list.fix(t, "roots"))
		s.OnTarget("mv", "/root/kept", "/etc/nixos/current-configuration")
		checked(s, quick...).are(t)
	})
	t.Run("a unit that failed", func(t *testing.T) {
		s := s.In(t)
		s.OnTarget("sh", "-c", "systemd-run --quiet --unit=broken false; until systemctl --quiet is-failed broken; do sleep 0.05; done")
		checked(s, quick...).are(t, "web units warning: 1 unit failed: broken.service")
		s.Inventory(s.Node("alice@"+s.Target.Name(), `checks.units.failed = "none";`))
		checked(s, quick...).are(t, `web units error: 1 unit failed: broken.service; with checks.units.failed = "none" a switch would be rolled back`)
		s.Inventory(alice)
		s.OnTarget("systemctl", "reset-failed", "broken")
	})
	t.Run("another deployment", func(t *testing.T) {
		s := s.In(t)
		s.Write("web/configuration.nix", site.With(site.Configuration("second"), site.Holds()))
		s.OnTarget("touch", "/run/hold-activate")
		_, ended := s.Background("deploy", "--sudo-password-file", s.Password)
		site.Until(t, "it is being activated", func() bool { return s.OnTarget("sh", "-c", "ls /run/at-activate 2>/dev/null; true") != "" })
		checked(s, quick...).are(t, "web lock error: root@")
		s.OnTarget("rm", "/run/hold-activate")
		if o := ended(); o.Status != 0 {
			t.Errorf("status %d", o.Status)
		}
	})
	t.Run("a configuration that does not evaluate", func(t *testing.T) {
		s := s.In(t)
		s.Write("web/configuration.nix", "{ networking.hostname = 1; }")
		checked(s, password...).are(t, "web evaluation error: ")
		s.Write("web/configuration.nix", site.Configuration("third"))
	})
	t.Run("another platform", func(t *testing.T) {
		s := s.In(t)
		s.Inventory(strings.Replace(alice, "x86_64-linux", "aarch64-linux", 1))
		const system = "web system error: the node is built for aarch64-linux, but the target is x86_64-linux"
		list := checked(s, password...)
		list.are(t, " builds for aarch64-linux error: ", system)
		// What it says for Debian is done: emulation works in every lab, and Nix has to be told.
		_, setting, _ := strings.Cut(list.about(t, "builds for aarch64-linux").Fixes[1], "qemu-user-static, ")
		setting, _, _ = strings.Cut(setting, " in /etc/nix/nix.conf")
		checked(s, append([]string{"--option", strings.ReplaceAll(setting, " ", "")}, password...)...).are(t, system)
		if fix := list.fix(t, "system"); fix != `set system = "x86_64-linux" for this node in the inventory` {
			t.Errorf("fix: %s", fix)
		}
		s.Inventory(alice)
	})
	t.Run("a system of somebody else's", func(t *testing.T) {
		s := s.In(t)
		s.OnTarget("nix-env", "-p", "/nix/var/nix/profiles/system", "--switch-generation", "1")
		checked(s, quick...).are(t, "web history error: the target boots nixos-system-web")
		s.OnTarget("nix-env", "-p", "/nix/var/nix/profiles/system", "--switch-generation", "3")
	})
	t.Run("a source that is big, and one with a key in it", func(t *testing.T) {
		s := s.In(t)
		s.Must("truncate", "--size=60M", s.Project+"/disk.img")
		checked(s, quick...).are(t, " source warning: 63 MB go to the store")
		s.Must("rm", s.Project+"/disk.img")
		s.Must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.Project+"/id")
		checked(s, quick...).are(t, " inventory error: source: private key in id ")
		s.Must("rm", s.Project+"/id")
	})
}

// inMemory is said of a machine of the lab whose store has a limit: its /nix is a tmpfs.
const inMemory = "web persistence note: a reboot empties /nix/var/nix"

// TestCheckOfAMachineThatCannotBeDeployedTo finds all of what is wrong there at once.
func TestCheckOfAMachineThatCannotBeDeployedTo(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{NoSystemd: true, NotNixOS: true, StoreLimit: 96 << 20}, Bare: true, Login: "bob"})
	s.OnTarget("sh", "-c", "mv /usr/bin/nix-store /usr/bin/away; fallocate -l $(($(stat -f -c '%a * %S' /nix) - 20 * 1000000)) /nix/filler")
	checked(s).are(t, "web nix error: the target has no working Nix: nix-store is not in PATH", "web nixos error: the target is not a NixOS machine",
		"web store error: the target's disk is full: ", "web systemd error: the target could not roll back by itself: PID 1 is not systemd there",
		"web units note: failed units are not known: PID 1 is not systemd", inMemory)
}

// TestCheckComparesTheRoomWithWhatWouldBeShipped has a store that is large enough to begin, and too small to end.
func TestCheckComparesTheRoomWithWhatWouldBeShipped(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{StoreLimit: 256 << 20}, Login: "bob"})
	s.Write("web/configuration.nix", site.With(site.Configuration("first"), site.Data("fill", 12, 4<<20)))
	s.OnTarget("sh", "-c", "fallocate -l $(($(stat -f -c '%a * %S' /nix) - 34 * 1000000)) /nix/filler")
	checked(s).are(t, inMemory)
	s.Bundle()
	checked(s).are(t, "web store error: the target's disk is too full: ", inMemory)
	s.OnTarget("rm", "/nix/filler")
	checked(s).are(t, inMemory)
}
