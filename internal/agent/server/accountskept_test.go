package server

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// declares makes a system's activation do with users what NixOS's does: who was declared and is no longer goes, who is new
// has no password.
func (m *fakeMachine) declares(system nix.StorePath, names string) {
	m.T.Helper()
	users := fmt.Sprintf(`
	e=$FERRY_TEST_ROOT/etc d=$FERRY_TEST_ROOT/var/lib/nixos/declarative-users now=%q
	for name in $(cat "$d"); do
		case " $now " in *" $name "*) ;; *) sed -i "/^$name:/d" "$e/passwd" "$e/shadow" ;; esac
	done
	for name in $now; do
		grep -q "^$name:" "$e/passwd" || { echo "$name:x:1:100::/:/bin/sh" >>"$e/passwd"; echo "$name:!:1::::::" >>"$e/shadow"; }
	done
	printf %%s "$now" >"$d"
`, names)
	m.Program(string(system)+"/bin/switch-to-configuration", strings.Replace(switchScript, "\necho \"done\"", users+"\necho \"done\"", 1))
	text := "/nix/store/" + system.Hash() + "-users-groups.json\n"
	m.Write(string(system)+"/activate", text)
}

const (
	peoplesPasswd = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/zsh\nbob:x:1001:1001::/home/bob:/bin/sh\n"
	peoplesShadow = "root:!:1::::::\nalice:$6$alice:1::::::\nbob:$6$bob:1::::::\n"
)

// withPeople is a machine with alice, whom only the old system declares, and bob, whom only the new one does.
func (m *fakeMachine) withPeople() *fakeMachine {
	m.T.Helper()
	m.Write("/etc/passwd", peoplesPasswd)
	m.Write("/etc/shadow", peoplesShadow)
	m.Write("/var/lib/nixos/declarative-users", "root alice")
	m.Write("/proc/sys/kernel/random/boot_id", "boot-1\n")
	m.declares(oldSystem, "root alice")
	m.declares(newSystem, "root bob eve")
	return m
}

func (m *fakeMachine) hasPeople() {
	m.T.Helper()
	for name, want := range map[string]string{"/etc/passwd": peoplesPasswd, "/etc/shadow": peoplesShadow, "/var/lib/nixos/declarative-users": "root alice"} {
		if got := m.Read(name); got != want {
			m.T.Errorf("%s is\n%s", name, got)
		}
	}
	m.keepsNothing()
}

// keepsNothing checks that nothing is left of what was kept of the accounts, and nothing told of them.
func (m *fakeMachine) keepsNothing() {
	m.T.Helper()
	for _, name := range []string{accountsFolder, controlFolder} {
		if m.Exists(name) {
			m.T.Errorf("%s is left", name)
		}
	}
	err := filepath.WalkDir(m.Dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeType != 0 || strings.HasPrefix(name, m.Path("/etc/")) || strings.HasPrefix(name, m.Path("/nix/")) {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Mode()&0o111 != 0 {
			// A program: this one has what is looked for in it.
			return err
		}
		text, err := os.ReadFile(name)
		if strings.Contains(string(text), "$6$") {
			m.T.Errorf("%s has a hash in it", name)
		}
		return err
	})
	if err != nil {
		m.T.Fatal(err)
	}
}

func TestGoingBackBringsTheUsersBack(t *testing.T) {
	m := newMachine(t).withSystemd().withPeople()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	if text := m.Read("/etc/passwd"); strings.Contains(text, "alice") || !strings.Contains(text, "eve") {
		t.Fatalf("the new system has made\n%s", text)
	}
	for _, name := range []string{filepath.Join(machine.RunFolder, job+"-switch", keptBefore), filepath.Join(machine.RunFolder, job+"-switch", keptAfter), accountsBefore, accountsAfter} {
		if info, err := os.Stat(m.Path(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	r, _ = f.ask(finish(agent.VerdictBack))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.Trouble != "" {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	m.hasPeople()
}

func TestASuccessorBringsTheUsersBack(t *testing.T) {
	m := newMachine(t).withSystemd().withPeople()
	m.Write("/control/wait", "")
	f := m.connect(locked("s1"))
	f.send(guarded("switch"))
	var state guardState
	until(t, "it activates", func() bool {
		state, _ = readState(m.jobFolder(JobSwitch))
		return state.Phase == agent.Activating && len(m.calls()) > 0
	})
	if err := syscall.Kill(state.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.Write("/control/go", "")
	r, _ := f.answer()
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	m.hasPeople()
}

func TestACommittedSystemHasItsOwnUsers(t *testing.T) {
	m := newMachine(t).withSystemd().withPeople()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	r, _ = f.ask(finish(agent.VerdictConfirm))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	if text := m.Read("/etc/passwd"); strings.Contains(text, "alice") || !strings.Contains(text, "eve") {
		t.Errorf("there are\n%s", text)
	}
	m.keepsNothing()
}

// boots does what a boot of a system does with users, and then starts the service.
func (m *fakeMachine) boots(system nix.StorePath, id string) {
	m.T.Helper()
	m.Write("/proc/sys/kernel/random/boot_id", id+"\n")
	for _, link := range []string{"/run/booted-system", "/run/current-system"} {
		if err := os.Remove(m.Path(link)); err != nil {
			m.T.Fatal(err)
		}
		m.Link(string(system), link)
	}
	if err := os.RemoveAll(m.Path("/run/ferry")); err != nil {
		m.T.Fatal(err)
	}
	if err := new(run.Runner).Run(m.T.Context(), run.Command{Argv: []string{m.Path(string(system)) + "/bin/switch-to-configuration", "test"}}); err != nil {
		m.T.Fatal(err)
	}
	if err := accountsBack(m.T.Context(), m.Root); err != nil {
		m.T.Error(err)
	}
}

func TestAPowerCutBringsTheUsersBack(t *testing.T) {
	m := newMachine(t).withSystemd().withPeople()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	if err := accountsBack(t.Context(), m.Root); err != nil {
		t.Fatal(err)
	}
	if !m.Exists(accountsBefore) {
		t.Fatal("the switch itself has ended what was kept for a boot")
	}
	state, err := readState(m.jobFolder(JobSwitch))
	if err != nil || syscall.Kill(state.Pid, syscall.SIGKILL) != nil {
		t.Fatal(err)
	}
	m.boots(oldSystem, "boot-2")
	m.hasPeople()
}

func TestTheBootAfterATestBringsTheUsersBack(t *testing.T) {
	m := newMachine(t).withSystemd().withPeople()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("test"))
	waits(t, r)
	if r, _ = f.ask(finish(agent.VerdictConfirm)); r.Error != nil || r.Switch.Outcome != agent.SwitchActivated {
		t.Fatalf("%+v, %v", r.Switch, r.Error)
	}
	removeOldAccounts(m.Root)
	m.boots(oldSystem, "boot-2")
	m.hasPeople()
}

func TestTheBootAfterTwoTestsBringsTheUsersBack(t *testing.T) {
	m := newMachine(t).withSystemd().withPeople()
	other := nix.StorePath("/nix/store/44444444444444444444444444444444-new2")
	m.declares(other, "root carol")
	m.Program(string(other)+"/bin/switch-to-configuration", strings.Replace(m.Read(string(other)+"/bin/switch-to-configuration"), string(newSystem), string(other), 1))
	for n, toplevel := range []nix.StorePath{newSystem, other} {
		f := m.connect(locked("s1"))
		begin := guarded("test")
		begin.Job, begin.Toplevel = fmt.Sprintf("deployment%d", n+1), toplevel
		if r, _ := f.ask(begin); r.Error != nil || r.Switch.Phase != agent.Waiting {
			t.Fatalf("%+v, %v", r.Switch, r.Error)
		}
		end := finish(agent.VerdictConfirm)
		end.Job = begin.Job
		if r, _ := f.ask(end); r.Error != nil || r.Switch.Outcome != agent.SwitchActivated {
			t.Fatalf("%+v, %v", r.Switch, r.Error)
		}
		_ = f.in.Close()
		<-f.ended
		f.ended <- nil
		if n == 0 {
			// Between the two.
			m.Write("/etc/shadow", strings.Replace(m.Read("/etc/shadow"), "root:!", "root:$6$root", 1))
		}
	}
	if text := m.Read("/etc/passwd"); !strings.Contains(text, "carol") || strings.Contains(text, "eve") {
		t.Fatalf("there are\n%s", text)
	}
	m.boots(oldSystem, "boot-2")
	m.Write("/etc/shadow", strings.Replace(m.Read("/etc/shadow"), "root:$6$root", "root:!", 1))
	m.hasPeople()
}

func TestASwitchBackUndoesWhatTheSwitchHasMadeOfTheUsers(t *testing.T) {
	m := newMachine(t).withSystemd().withPeople()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	if r, _ = f.ask(finish(agent.VerdictConfirm)); r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
		t.Fatalf("%+v, %v", r.Switch, r.Error)
	}
	if info, err := os.Stat(m.Path(lastChange)); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	passwd, shadow, well := m.Read("/etc/passwd"), m.Read("/etc/shadow"), m.Read(string(oldSystem)+"/bin/switch-to-configuration")
	m.Program(string(oldSystem)+"/bin/switch-to-configuration", "#!/bin/sh\nexit 1\n")
	back := guarded("switch")
	back.Job, back.Toplevel, back.Bundle = "deployment2", oldSystem, oldBundle
	if r, _ = f.ask(back); r.Error != nil || r.Switch.Outcome != agent.SwitchRefused {
		t.Fatalf("%+v, %v", r.Switch, r.Error)
	}
	if m.Read("/etc/passwd") != passwd || m.Read("/etc/shadow") != shadow {
		t.Errorf("a switch back that was refused has left\n%s", m.Read("/etc/passwd"))
	}
	m.Program(string(oldSystem)+"/bin/switch-to-configuration", well)
	back.Job = "deployment3"
	if r, _ = f.ask(back); r.Error != nil || r.Switch.Phase != agent.Waiting {
		t.Fatalf("%+v, %v", r.Switch, r.Error)
	}
	for _, line := range []string{"alice:x:1000:1000:Alice:/home/alice:/bin/zsh\n", "bob:x:1001:1001::/home/bob:/bin/sh\n"} {
		if text := m.Read("/etc/passwd"); !strings.Contains(text, line) || strings.Contains(text, "eve") {
			t.Errorf("there are\n%s", text)
		}
	}
	if text := m.Read("/etc/shadow"); !strings.Contains(text, "alice:$6$alice:") {
		t.Errorf("her password is not there")
	}
	end := finish(agent.VerdictBack)
	end.Job = back.Job
	if r, _ = f.ask(end); r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	if m.Read("/etc/passwd") != passwd || m.Read("/etc/shadow") != shadow {
		t.Errorf("going back from it has left\n%s", m.Read("/etc/passwd"))
	}
}

func TestNothingIsKeptForABootOfTheSameUsers(t *testing.T) {
	m := newMachine(t).withSystemd().withPeople()
	m.Write(string(newSystem)+"/activate", m.Read(string(oldSystem)+"/activate"))
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	if m.Exists(accountsFolder) || m.Exists(controlFolder) {
		t.Error("something is kept for a boot that changes nothing")
	}
	f.ask(finish(agent.VerdictBack))
}
