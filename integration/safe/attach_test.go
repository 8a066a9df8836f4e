package safe_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// at is how ssh is told where the target is.
func (x *trial) at() string {
	x.T.Helper()
	_, rest, _ := strings.Cut(x.Must("cat", x.Project+"/ferry.nix"), `target = "`)
	at, _, _ := strings.Cut(rest, `"`)
	return at
}

// attaches follows the deployment that goes on at the target.
func (x *trial) attaches() site.Outcome {
	x.T.Helper()
	return x.Ferry("attach", "--sudo-password-file", x.Password, "web")
}

// dies is ferry, every ssh that it has started, and their sessions on the target: the one that confirms may go on without it, and
// then has confirmed.
func (x *trial) dies(cmd *exec.Cmd, ended func() site.Outcome) {
	x.T.Helper()
	if err := cmd.Process.Kill(); err != nil {
		x.T.Fatal(err)
	}
	ended()
	at := x.at()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		x.T.Fatal(err)
	}
	for _, file := range commands {
		argv, _ := os.ReadFile(file)
		words := strings.Split(string(argv), "\x00")
		if filepath.Base(words[0]) != "ssh" || !slices.Contains(words, at) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	x.OnTarget("sh", "-c", "pkill -KILL -f '^sshd: "+x.login+"'; true")
}

// followed fails the test unless ferry has shown the log from its first line on, and done what was left to do.
func followed(t *testing.T, o site.Outcome) {
	t.Helper()
	shown(t, o)
	o.Says(t, "web: confirm ")
}

// shown fails the test unless ferry has shown the log from its first line on, each line once, of a deployment that went well.
func shown(t *testing.T, o site.Outcome) {
	t.Helper()
	if o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	for _, line := range []string{"web | activating the configuration...\n", "web | activate: one\n", "web | activate: two\n"} {
		if n := strings.Count(o.Errors, line); n != 1 {
			t.Errorf("the line %q is there %d times", line, n)
		}
	}
	o.Says(t, "web: activate ", "web: commit    generation ", "web: done: generation ")
}

// TestAttachFinishesWhatAnotherFerryBegan has ferry leave a target in each way while it activates, and while it waits.
func TestAttachFinishesWhatAnotherFerryBegan(t *testing.T) {
	t.Parallel()
	leaves := map[string]func(x *trial, phase site.Stage){
		"killed": func(x *trial, phase site.Stage) {
			x.dies(x.begin(phase))
		},
		"told twice to end": func(x *trial, phase site.Stage) {
			phase.Begin(x.Rehearsal)
			p := x.Person("deploy", "--sudo-password-file", x.Password)
			x.Await(phase)
			if phase.Name == confirm.Name {
				// The target waits a moment before ferry knows.
				p.Sees("web: activate ")
			}
			p.Types("\x03")
			p.Sees("wait, or press Ctrl-C again and later run: ferry attach web")
			p.Types("\x03")
			o := p.Ends()
			o.Says(x.T, "ferry: error: web: "+phase.Name+": interrupted\n", "ferry attach web follows it again\n", "ferry: hint: its log on the target: /run/ferry/")
			if o.Status != 5 {
				x.T.Errorf("status %d", o.Status)
			}
		},
		"cut off": func(x *trial, phase site.Stage) {
			cmd, ended := x.begin(phase)
			x.Relay.Cut()
			x.Relay.Freeze()
			for range 2 {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					x.T.Fatal(err)
				}
				x.T.Log(x.OnTarget("sleep", "0.5"))
			}
			if o := ended(); o.Status != 5 {
				x.T.Errorf("status %d", o.Status)
			}
			x.Relay.Thaw()
		},
	}
	eachLogin(t, func(t *testing.T, x *trial) {
		x.Relay = x.Relayed(x.login, lab.RelayOptions{})
		for name, leave := range leaves {
			for _, phase := range []site.Stage{activate, confirm} {
				t.Run(name+" while it has to "+phase.Name, func(t *testing.T) {
					x := x.in(t)
					greeting := x.rewrite("")
					leave(x, phase)
					if got := x.State(); got.Boots == got.Runs && phase.Name == "confirm" {
						t.Errorf("nobody has confirmed it, and it is %+v", got)
					}
					if phase.Name == "activate" {
						// It is not over yet, and attach shows the rest.
						_, ended := x.Background("attach", "--sudo-password-file", x.Password, "web")
						x.goOn(phase)
						followed(t, ended())
					} else {
						x.goOn(phase)
						followed(t, x.attaches())
					}
					x.isNew(greeting)
				})
			}
		}
	})
}

// TestAttachMakesTheChecksOfItsInventory has them made by the ferry that comes later, as its own inventory has them: what the target
// says that there is to be asked is not asked from here, by the target's root either.
func TestAttachMakesTheChecksOfItsInventory(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	var requests atomic.Int32
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			requests.Add(1)
			_ = conn.Close()
		}
	}()
	hostile := fmt.Sprintf(`"checks":{"units":"no-new","http":[{"url":"http://%s/","status":200,"from":"here","timeout":2}],"commands":[{"run":["touch","/run/asked"],"timeout":5}]}`, listener.Addr())
	const passes, fails = `commands = [ { run = [ "true" ]; } ];`, `commands = [ { run = [ "false" ]; } ];`
	for _, c := range []struct {
		name, deployed, attached string
		status                   int
		says                     []string
	}{
		{"the same, and they pass", passes, passes, 0, []string{"web | command true: ok\n"}},
		{"the same, and one does not", fails, fails, 4, []string{"web: check: command false: exit status 1; the target rolled back to nixos-system-web-"}},
		{"others", fails, passes, 0, []string{"web: note: this deployment was begun with other checks than the inventory has for web: those of the inventory are made\n", "web | command true: ok\n"}},
		{"none any more", passes, "", 4, []string{
			"web: note: this deployment waits for checks, and the inventory has none for web: it is only watched, and rolls back unless the ferry that started it is still there\n",
			"hint: attach with the inventory that it was deployed with: checks are only made as one's own inventory has them\n",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := x.in(t)
			before, greeting := x.State(), x.rewrite("")
			x.checked(c.deployed)
			var flags []string
			if c.attached == "" {
				// Nobody confirms it.
				flags = []string{"--confirm-timeout", "30s"}
			}
			x.dies(x.begin(confirm, flags...))
			x.goOn(confirm)
			// In place: it is the file that is locked.
			edit := fmt.Sprintf(`f=$(echo %s/job.json); sed '1s!{!{%s,!; s!"switch":{!&%s,!' "$f" >/run/edited && cat /run/edited >"$f" && grep -c %s "$f"`, folder, hostile, hostile, listener.Addr())
			x.OnTarget("sh", "-c", edit)
			x.checked(c.attached)
			o := x.attaches()
			if o.Status != c.status {
				t.Errorf("status %d, want %d", o.Status, c.status)
			}
			o.Says(t, c.says...)
			if n := requests.Load(); n != 0 {
				t.Errorf("%d requests as the target says", n)
			}
			if got := x.OnTarget("sh", "-c", "ls /run/asked 2>/dev/null; true"); got != "" {
				t.Errorf("a command was run as the target says: %s", got)
			}
			if c.status == 0 {
				x.isNew(greeting)
			} else {
				x.is(before)
			}
		})
	}
}

// TestAttachTellsHowADeploymentEnded comes when there is nothing to do any more, and to a target where there never was.
func TestAttachTellsHowADeploymentEnded(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	o := s.Ferry("attach", "--sudo-password-file", s.Password)
	o.Fails(t, 1, "web: activate: nothing has been deployed to this target since it was started")

	x := newTrial(t, "alice", lab.Options{})
	since := x.State()
	o = x.attaches()
	shown(t, o)
	x.Want(x.State(), since)

	x.rewrite(`system.switch.fault = { phase = "check"; exitCode = 1; actions = [ "test" ]; };`)
	x.deploys()
	x.attaches().Fails(t, 1, "web: activate: switch-to-configuration refused (exit status 1); nothing has changed", "the whole log is on the target: /run/ferry/")

	x.rewrite(`system.activationScripts.broken = "false";`)
	x.deploys()
	x.attaches().Fails(t, 4, "web: activate: the activation script failed (exit status 2): broken; the target rolled back to nixos-system-web-", "the whole log is on the target: /run/ferry/")
	x.is(since)

	x.rewrite("")
	x.Deploy("--action", "test")
	x.attaches().Says(t, "web: runs nixos-system-web-", " until the next boot")

	x.Reboot()
	x.attaches().Fails(t, 1, "web: activate: nothing has been deployed to this target since it was started")
}

// TestAFerryThatIsStillThereMayBeJoined follows one deployment from two places, of which either may go.
func TestAFerryThatIsStillThereMayBeJoined(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	for name, c := range map[string]struct{ firstGoes, secondGoes bool }{
		"both stay": {}, "the first goes": {firstGoes: true}, "the second goes": {secondGoes: true},
	} {
		t.Run(name, func(t *testing.T) {
			x := x.in(t)
			greeting := x.rewrite("")
			x.checked(`commands = [ { run = [ "true" ]; } ];`)
			firstCmd, first := x.begin(activate)
			secondCmd, second := x.Background("attach", "--sudo-password-file", x.Password, "web")
			x.until("the second follows as well", func() string { return x.OnTarget("sh", "-c", "ls "+folder+"/expect | wc -l") }, "2")
			if c.firstGoes {
				if err := firstCmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				first()
			}
			if c.secondGoes {
				if err := secondCmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				second()
			}
			x.goOn(activate)
			if !c.firstGoes {
				followed(t, first())
			}
			if !c.secondGoes {
				followed(t, second())
			}
			x.isNew(greeting)
		})
	}
}

// TestALoginThatNeedsAPersonCanAttach confirms by what can be proved without the person.
func TestALoginThatNeedsAPersonCanAttach(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	relay := lab.StartRelay(t, netip.AddrPortFrom(x.Target.Addr(), 22), lab.RelayOptions{})
	config := x.Project + "-ssh-config"
	text := fmt.Sprintf("Host front-door\n  HostName %s\n  Port %d\n  User bob\n  HostKeyAlias %s\n  PubkeyAuthentication no\n", relay.Addr().Addr(), relay.Addr().Port(), x.Target.Name())
	if err := x.Builder.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	greeting := x.rewrite("")
	// It has told the target nothing yet that could confirm it.
	x.dies(x.begin(activate))
	x.goOn(activate)
	x.Inventory(x.Node("front-door"))
	p := x.Person("attach", "--ssh-config", config, "--sudo-password-file", x.Password)
	p.Sees("bob@")
	p.Sees("'s password: ")
	p.Types(lab.Password + "\n")
	o := p.Ends()
	followed(t, o)
	o.Says(t, "web: note: the login needs a person: the new system will be confirmed when its sshd answers, which proves less than a login with a key")
	x.isNew(greeting)
}

// TestAfterOneSignalTheEndIsTold has a user who wants to leave, and stays: how the target ended is the end.
func TestAfterOneSignalTheEndIsTold(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	for _, c := range []struct {
		name, more string
		status     int
		says       string
	}{
		{"it went back at once", `system.switch.fault = { phase = "end"; exitCode = 1; actions = [ "test" ]; };`, 4, "web: activate: switch-to-configuration failed in the middle (exit status 1); the target rolled back to "},
		{"it went back", `system.activationScripts.zz = "false";`, 4, "web: activate: the activation script failed (exit status 2): zz; the target rolled back to "},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := x.in(t)
			before := x.State()
			x.rewrite(c.more)
			cmd, ended := x.begin(activate)
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			x.goOn(activate)
			ended().Fails(t, c.status, c.says, "the whole log is on the target: /run/ferry/")
			x.is(before)
		})
	}
	t.Run("nothing has changed, as the target says before it begins", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.rewrite(`system.switch.fault = { phase = "check"; exitCode = 1; actions = [ "test" ]; };`)
		cmd, ended := x.begin(armed)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		x.goOn(armed)
		ended().Fails(t, 1, "web: activate: switch-to-configuration refused (exit status 1); nothing has changed", "the whole log is on the target: /run/ferry/")
		x.is(before)
	})
}
