package server

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/bootloader"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// menuScript is a switch-to-configuration that writes systemd-boot's menu, of all generations or of the last ones.
const menuScript = `#!/bin/sh
system=SYSTEM
cd "$FERRY_TEST_ROOT" || exit 9
echo "$(basename "$system") $1" >>calls
[ ! -e control/status-boot ] || exit "$(cat control/status-boot)"
rm -f boot/loader/entries/*
for n in $(ls -d nix/var/nix/profiles/system-*-link | sed 's/.*system-//; s/-link//' | sort -n | tail -n "$(cat control/limit 2>/dev/null || echo 99)"); do
	of=$(readlink "nix/var/nix/profiles/system-$n-link")
	printf 'title NixOS\noptions init=%s/init loglevel=4\n' "$of" >"boot/loader/entries/nixos-generation-$n.conf"
	[ "$of" != "$system" ] || printf 'default nixos-generation-%s.conf\n' "$n" >boot/loader/loader.conf
done
`

// bootctlScript is a bootctl that only knows set-oneshot.
const bootctlScript = `#!/bin/sh
echo "bootctl $1 $2" >>"$FERRY_TEST_ROOT/calls"
[ ! -e "$FERRY_TEST_ROOT/control/bootctl-fails" ] || { echo "Not booted with a supported boot loader." >&2; exit 1; }
[ "$1" = set-oneshot ] || exit 9
printf '%s' "$2" >"$FERRY_TEST_ROOT/oneshot"
`

// newTriable is a machine with systemd and systemd-boot that runs and boots the old system, its first generation.
func newTriable(t *testing.T) *fakeMachine {
	t.Helper()
	m := newMachine(t)
	m.Write("/run/systemd/system/.keep", "")
	m.Write("/proc/sys/kernel/random/boot_id", "boot-1\n")
	m.Write("/boot/loader/loader.conf", "default nixos-generation-1.conf\n")
	m.Write("/boot/loader/entries/nixos-generation-1.conf", machinetest.SystemdBootEntry(string(oldSystem), false))
	m.Program("/bin/bootctl", bootctlScript)
	m.Program("/bin/systemctl", "#!/bin/sh\necho \"systemctl $*\" >>\"$FERRY_TEST_ROOT/calls\"\n")
	for _, system := range []nix.StorePath{oldSystem, newSystem} {
		m.Program(string(system)+"/bin/switch-to-configuration", strings.ReplaceAll(menuScript, "SYSTEM", string(system)))
	}
	return m
}

// work runs a job's work in this process.
func (m *fakeMachine) work(do func(context.Context, machine.Root, Job, *os.File) jobStatus) (jobStatus, string) {
	m.T.Helper()
	log, err := os.Create(m.Path("/control/log"))
	if err != nil {
		m.T.Fatal(err)
	}
	defer log.Close()
	status := do(m.T.Context(), m.Root, Job{Toplevel: newSystem, Bundle: newBundle, Action: "boot", Within: 60}, log)
	return status, m.Read("/control/log")
}

// reboots starts the machine again with a system.
func (m *fakeMachine) reboots(system nix.StorePath) {
	m.T.Helper()
	m.Write("/proc/sys/kernel/random/boot_id", m.BootID()+"+\n")
	for _, link := range []string{"/run/booted-system", "/run/current-system"} {
		if err := m.Disk.Link(string(system), m.Path(link)); err != nil {
			m.T.Fatal(err)
		}
	}
	m.Write("/oneshot", "")
	m.Write("/calls", "")
}

// timer lets the rollback timer run out.
func (m *fakeMachine) timer() {
	m.T.Helper()
	if err := rebootUnlessCommitted(m.T.Context(), m.Root, new(run.Runner), time.Minute, time.Millisecond); err != nil {
		m.T.Error(err)
	}
}

// listing is what is on the disk of a trial and of the system's generations.
func (m *fakeMachine) listing() []string {
	m.T.Helper()
	var found []string
	for _, pattern := range []string{
		controlFolder + "*", controlFolder + "/*", controlFolder + "/*/*", trialFolder + "/*", machine.GCRoots + "/*", systemProfile + "-*", "/boot/loader/entries/*",
	} {
		files, _ := filepath.Glob(m.Path(pattern))
		for _, file := range files {
			found = append(found, strings.TrimPrefix(file, m.Dir))
		}
	}
	return found
}

func (m *fakeMachine) defaultIs(system nix.StorePath) {
	m.T.Helper()
	if boots, err := bootloader.All(m.Root)[0].Boots(); boots != string(system) || err != nil {
		m.T.Errorf("%q boots by default, %v", boots, err)
	}
}

// untouched makes sure that nothing of a trial is there.
func (m *fakeMachine) untouched() {
	m.T.Helper()
	m.defaultIs(oldSystem)
	want := []string{systemProfile + "-1-link", "/boot/loader/entries/nixos-generation-1.conf"}
	if found := m.listing(); !slices.Equal(found, want) {
		m.T.Errorf("there is %q", found)
	}
	if p := readProfile(m.Root); p.generation != 1 || p.toplevel != string(oldSystem) {
		m.T.Errorf("the profile is %+v", p)
	}
	if once := m.Read("/oneshot"); once != "" {
		m.T.Errorf("it will boot %q once", once)
	}
}

// TestATrialLeavesTheDefaultAlone locks what is there between the preparation and the reboot.
func TestATrialLeavesTheDefaultAlone(t *testing.T) {
	m := newTriable(t)
	status, log := m.work(bootOnceJob)
	if status.Status != 0 || status.Error != "" || log != "ferry: systemd-boot boots \"nixos-generation-2.conf\" once\n" {
		t.Fatalf("%+v\n%s", status, log)
	}
	m.defaultIs(oldSystem)
	if once := m.Read("/oneshot"); once != "nixos-generation-2.conf" {
		t.Errorf("it will boot %q once", once)
	}
	if p := readProfile(m.Root); p.generation != 1 {
		t.Errorf("the profile is %+v", p)
	}
	if calls := m.calls(); !slices.Equal(calls, []string{"0-old boot", "bootctl set-oneshot nixos-generation-2.conf", "systemctl reboot"}) {
		t.Errorf("ran %q", calls)
	}
	want := []string{
		controlFolder, controlFolder + "/" + rebootTimerUnit, controlFolder + "/" + rebootTimer, controlFolder + "/" + rebootTimerWants,
		controlFolder + "/" + rebootTimerWants + "/" + rebootTimer, trialFolder + "/agent", trialFolder + "/trial.json",
		machine.GCRoots + "/reboot-new", machine.GCRoots + "/reboot-old", systemProfile + "-1-link", systemProfile + "-2-link",
		"/boot/loader/entries/nixos-generation-1.conf", "/boot/loader/entries/nixos-generation-2.conf",
	}
	if found := m.listing(); !slices.Equal(found, want) {
		t.Errorf("there is %q", found)
	}
	if text := m.Read(controlFolder + "/" + rebootTimer); !strings.Contains(text, "\nOnActiveSec=60\n") || !strings.Contains(text, "DefaultDependencies=no") {
		t.Errorf("the timer is\n%s", text)
	}
	if text := m.Read(controlFolder + "/" + rebootTimerWants + "/" + rebootTimer); !strings.Contains(text, "[Timer]") {
		t.Errorf("the timer is not wanted: %q", text)
	}
}

// TestATrialThatCannotBePreparedIsUndone locks that nothing is left of it.
func TestATrialThatCannotBePreparedIsUndone(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(*fakeMachine)
		error string
	}{
		"the boot loader cannot be written": {func(m *fakeMachine) { m.Write("/control/status-boot", "1") }, "exit status 1"},
		"the menu has room for one system":  {func(m *fakeMachine) { m.Write("/control/limit", "1") }, "systemd-boot's default entry"},
		"the menu is another loader's": {func(m *fakeMachine) {
			m.Program(string(oldSystem)+"/bin/switch-to-configuration", "#!/bin/sh\n")
		}, "no entry"},
		"bootctl fails": {func(m *fakeMachine) { m.Write("/control/bootctl-fails", "") }, "Not booted with"},
		"somebody holds the reboot off": {func(m *fakeMachine) {
			m.Program("/bin/systemctl", "#!/bin/sh\n[ \"$1\" != reboot ] || { echo 'it is held off' >&2; exit 1; }\n")
		}, "held off"},
		"there is no such loader": {func(m *fakeMachine) { _ = os.Remove(m.Path("/bin/bootctl")) }, "no boot loader"},
		"nothing can be kept":     {func(m *fakeMachine) { m.Write("/nix/var/nix/gcroots", "no folder") }, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTriable(t)
			t.Setenv("PATH", m.Path("/bin")+":/usr/bin:/bin")
			c.make(m)
			status, _ := m.work(bootOnceJob)
			if status.Status == 0 || !strings.Contains(status.Error, c.error) {
				t.Errorf("%+v", status)
			}
			m.untouched()
		})
	}
}

// TestThereIsNothingToTry locks the refusals that come before anything is done.
func TestThereIsNothingToTry(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(*fakeMachine)
		error string
	}{
		"it is the default":                {func(m *fakeMachine) { replace(m, "system-2-link", systemProfile) }, "already"},
		"the profile is no generation":     {func(m *fakeMachine) { replace(m, string(oldSystem), systemProfile) }, "no generation"},
		"the profile stands for no system": {func(m *fakeMachine) { replace(m, "system-9-link", systemProfile) }, "no generation"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTriable(t)
			m.Link(string(newSystem), systemProfile+"-2-link")
			c.make(m)
			if status, _ := m.work(bootOnceJob); status.Status == 0 || !strings.Contains(status.Error, c.error) {
				t.Errorf("%+v", status)
			}
			if calls := m.calls(); calls != nil {
				t.Errorf("ran %q", calls)
			}
		})
	}
}

func replace(m *fakeMachine, to, link string) {
	m.T.Helper()
	if err := m.Disk.Link(to, m.Path(link)); err != nil {
		m.T.Fatal(err)
	}
}

// TestATrialIsForgotten locks that what was prepared can be taken back, twice as well, and prepared again.
func TestATrialIsForgotten(t *testing.T) {
	m := newTriable(t)
	for range 2 {
		if status, log := m.work(bootOnceJob); status.Status != 0 {
			t.Fatalf("%+v\n%s", status, log)
		}
	}
	for range 2 {
		if status, log := m.work(bootForgetJob); status.Status != 0 {
			t.Fatalf("%+v\n%s", status, log)
		}
		m.untouched()
	}
}

// TestAForgottenTrialLeavesWhatWasThereBefore locks that a generation, and files that are not ferry's, stay.
func TestAForgottenTrialLeavesWhatWasThereBefore(t *testing.T) {
	m := newTriable(t)
	m.Link(string(newSystem), systemProfile+"-2-link")
	m.Write(controlFolder+"/web.service.d/50-MemoryMax.conf", "[Service]\n")
	if status, log := m.work(bootOnceJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	if status, log := m.work(bootForgetJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	want := []string{
		controlFolder, controlFolder + "/web.service.d", controlFolder + "/web.service.d/50-MemoryMax.conf",
		systemProfile + "-1-link", systemProfile + "-2-link",
		"/boot/loader/entries/nixos-generation-1.conf", "/boot/loader/entries/nixos-generation-2.conf",
	}
	if found := m.listing(); !slices.Equal(found, want) {
		t.Errorf("there is %q", found)
	}
}

// TestATrialThatIsCommittedIsOver locks that the commit removes the way back, and that the timer finds nothing to do then.
func TestATrialThatIsCommittedIsOver(t *testing.T) {
	m := newTriable(t)
	if status, log := m.work(bootOnceJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	m.reboots(newSystem)
	if status, log := m.work(commitJob); status.Status != 0 || status.Error != "" {
		t.Fatalf("%+v\n%s", status, log)
	}
	m.defaultIs(newSystem)
	for _, left := range []string{controlFolder, trialFolder, machine.GCRoots + "/reboot-old", machine.GCRoots + "/reboot-new"} {
		if m.Exists(left) {
			t.Errorf("%s is left", left)
		}
	}
	m.Write("/calls", "")
	m.timer()
	if calls := m.calls(); calls != nil {
		t.Errorf("the timer ran %q", calls)
	}
}

const rebootNow = "systemctl --ignore-inhibitors reboot"

// TestATrialThatIsNotCommittedGoesBackOnce locks the way back, and that there is no second one if the old system does not
// come.
func TestATrialThatIsNotCommittedGoesBackOnce(t *testing.T) {
	m := newTriable(t)
	if status, log := m.work(bootOnceJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	m.Write("/calls", "")
	m.timer()
	if calls := m.calls(); calls != nil {
		t.Errorf("in the boot before the trial it ran %q", calls)
	}
	m.reboots(newSystem)
	m.timer()
	if calls := m.calls(); !slices.Contains(calls, rebootNow) {
		t.Errorf("it ran %q", calls)
	}
	if status, _ := m.work(commitJob); status.Status == 0 || !strings.Contains(status.Error, "rolling back") {
		t.Errorf("committed too late: %+v", status)
	}
	m.defaultIs(oldSystem)

	m.reboots(newSystem)
	m.timer()
	if calls := m.calls(); slices.Contains(calls, rebootNow) {
		t.Errorf("the second time it ran %q", calls)
	}
}

// TestTheOldSystemTidiesUp locks that nothing is left where ferry does not come back after a trial went wrong.
func TestTheOldSystemTidiesUp(t *testing.T) {
	for name, returning := range map[string]bool{"after the way back": true, "after a power cut": false} {
		t.Run(name, func(t *testing.T) {
			m := newTriable(t)
			if status, log := m.work(bootOnceJob); status.Status != 0 {
				t.Fatalf("%+v\n%s", status, log)
			}
			if returning {
				m.reboots(newSystem)
				m.timer()
			}
			m.reboots(oldSystem)
			m.timer()
			m.untouched()
			if calls := m.calls(); slices.Contains(calls, rebootNow) {
				t.Errorf("it ran %q", calls)
			}
		})
	}
}

// TestACommitOfATrialThatAPowerCutBreaksOffIsUndone cuts the power when the profile stands for the new system, and the boot loader
// still boots the old one: that runs afterwards, so that nothing may say that the new one is what was deployed.
func TestACommitOfATrialThatAPowerCutBreaksOffIsUndone(t *testing.T) {
	for name, end := range map[string]func(*fakeMachine){
		"by the target itself": func(m *fakeMachine) { m.timer() },
		"by ferry": func(m *fakeMachine) {
			if status, log := m.work(bootForgetJob); status.Status != 0 {
				t.Fatalf("%+v\n%s", status, log)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTriable(t)
			if status, log := m.work(bootOnceJob); status.Status != 0 {
				t.Fatalf("%+v\n%s", status, log)
			}
			m.reboots(newSystem)
			replace(m, "system-2-link", systemProfile)
			m.reboots(oldSystem)
			end(m)
			m.untouched()
		})
	}
}

// TestATrialThatIsCutOffIsTidiedUp cuts the power at each moment of the preparation that it can be told by.
func TestATrialThatIsCutOffIsTidiedUp(t *testing.T) {
	for name, at := range map[string]string{"before the generation": "", "before the boot loader": "boot", "before it is told": "bootctl"} {
		t.Run(name, func(t *testing.T) {
			m := newTriable(t)
			// A power cut undoes nothing: the boot loader's failure stands for it, without what follows.
			w := &trier{root: m.Root, runner: new(run.Runner), job: Job{Toplevel: newSystem, Within: 60}, log: os.Stderr}
			switch at {
			case "":
				m.Write("/nix/var/nix/gcroots", "no folder")
			case "boot":
				m.Write("/control/status-boot", "1")
			case "bootctl":
				m.Write("/control/bootctl-fails", "")
			}
			if _, err := w.prepare(t.Context()); err == nil {
				t.Fatal("it was prepared")
			}
			if at == "" {
				_ = os.Remove(m.Path("/nix/var/nix/gcroots"))
			}
			_ = os.Remove(m.Path("/control/status-boot"))
			_ = os.Remove(m.Path("/control/bootctl-fails"))
			m.reboots(oldSystem)
			m.timer()
			m.untouched()
		})
	}
}

// TestAMenuThatWasCutOffIsWrittenAgain locks that a new system that came up only because the old one had fallen out of the menu
// does not come up a second time.
func TestAMenuThatWasCutOffIsWrittenAgain(t *testing.T) {
	m := newTriable(t)
	m.Write("/control/limit", "1")
	w := &trier{root: m.Root, runner: new(run.Runner), job: Job{Toplevel: newSystem, Within: 60}, log: os.Stderr}
	if _, err := w.prepare(t.Context()); err == nil {
		t.Fatal("it was prepared")
	}
	m.reboots(newSystem)
	m.timer()
	if calls := m.calls(); !slices.Contains(calls, "0-old boot") || calls[len(calls)-1] != rebootNow {
		t.Errorf("it ran %q", calls)
	}
	m.reboots(oldSystem)
	m.timer()
	m.untouched()
}

// TestACommitThatWasCutOffIsNotGoneBackFrom locks that a system that is the default already is not rebooted.
func TestACommitThatWasCutOffIsNotGoneBackFrom(t *testing.T) {
	for name, make := range map[string]func(*fakeMachine){
		"before the boot loader": func(m *fakeMachine) { replace(m, "system-2-link", systemProfile) },
		"after it": func(m *fakeMachine) {
			m.Write("/boot/loader/loader.conf", "default nixos-generation-2.conf\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTriable(t)
			if status, log := m.work(bootOnceJob); status.Status != 0 {
				t.Fatalf("%+v\n%s", status, log)
			}
			m.reboots(newSystem)
			make(m)
			m.timer()
			if calls := m.calls(); slices.Contains(calls, rebootNow) {
				t.Errorf("it ran %q", calls)
			}
			if m.Exists(controlFolder) {
				t.Error("the way back is left")
			}
		})
	}
}

// TestTheWayBackWaitsForADeployment locks that a deployment that has found the target is not interrupted.
func TestTheWayBackWaitsForADeployment(t *testing.T) {
	m := newTriable(t)
	if status, log := m.work(bootOnceJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	m.reboots(newSystem)
	held, holder, err := takeLock(m.Root, locked("s1"), time.Now())
	if err != nil || holder != nil {
		t.Fatal(holder, err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- rebootUnlessCommitted(context.WithoutCancel(t.Context()), m.Root, new(run.Runner), time.Minute, time.Millisecond)
	}()
	if status, log := m.work(commitJob); status.Status != 0 || status.Error != "" {
		t.Fatalf("%+v\n%s", status, log)
	}
	held.release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if calls := m.calls(); slices.Contains(calls, rebootNow) {
		t.Errorf("it ran %q", calls)
	}
}

// TestATrialSaysThatItMayGetStuck locks the reasons why there can be no way back but a power cycle.
func TestATrialSaysThatItMayGetStuck(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(*fakeMachine)
		stuck string
	}{
		"an /etc in memory": {func(m *fakeMachine) {
			m.Write("/proc/self/mountinfo", "20 1 0:30 / / rw - tmpfs none rw\n21 20 8:1 / /nix rw - ext4 /dev/sda1 rw\n")
		}, "does not outlive a reboot"},
		"an /etc that is read-only": {func(m *fakeMachine) { m.Write("/etc/systemd", "no folder") }, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTriable(t)
			c.make(m)
			if status, log := m.work(bootOnceJob); status.Status != 0 || !strings.Contains(log, "only a power cycle") || !strings.Contains(log, c.stuck) {
				t.Fatalf("%+v\n%s", status, log)
			}
		})
	}
}

// TestATrialAndARebootAreAskedForOverTheWire locks the requests and their answers, on a machine without systemd.
func TestATrialAndARebootAreAskedForOverTheWire(t *testing.T) {
	m := newTriable(t)
	if err := os.RemoveAll(m.Path("/run/systemd")); err != nil {
		t.Fatal(err)
	}
	m.Program("/bin/reboot", "#!/bin/sh\necho reboot >>\"$FERRY_TEST_ROOT/calls\"\n[ ! -e \"$FERRY_TEST_ROOT/control/no-reboot\" ] || { echo 'somebody holds it off' >&2; exit 1; }\n")
	f := m.connect(locked("s1"))
	if f.hello.Facts.BootOnce != "" {
		t.Errorf("without systemd, bootctl cannot know set-oneshot: %q", f.hello.Facts.BootOnce)
	}
	try := agent.Request{Method: agent.MethodBootOnce, Job: job, Toplevel: newSystem, Bundle: newBundle, Action: "try", Within: 60}
	r, log := f.ask(try)
	if r.Error != nil || r.BootOnce.Status != 0 || !strings.Contains(log, "the target has no systemd") {
		t.Fatalf("%+v, %v\n%s", r.BootOnce, r.Error, log)
	}
	if r, _ := f.ask(agent.Request{Method: agent.MethodReboot, Job: job}); r.Error != nil {
		t.Error(r.Error)
	}
	try.Action = "forget"
	if r, _ := f.ask(try); r.Error != nil || r.BootOnce.Status != 0 {
		t.Errorf("%+v, %v", r.BootOnce, r.Error)
	}
	m.untouched()
	want := []string{"0-old boot", "bootctl set-oneshot nixos-generation-2.conf", "reboot", "reboot", "bootctl set-oneshot ", "0-old boot"}
	if calls := m.calls(); !slices.Equal(calls, want) {
		t.Errorf("ran %q", calls)
	}
	m.Write("/control/no-reboot", "")
	if r, _ := f.ask(agent.Request{Method: agent.MethodReboot, Job: job + "2"}); r.Error == nil || !strings.Contains(r.Error.Text, "holds it off") {
		t.Errorf("%v", r.Error)
	}
	if r, _ := m.connect(Options{}).ask(try); r.Error == nil || r.Error.Kind != agent.KindLocked {
		t.Errorf("without the lock: %v", r.Error)
	}
}
