package nixos_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
)

func TestUnitsFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, lab.Options{Suite: suite})
			steps := []struct {
				name, config, says, state string
			}{
				{"new", forever("one", ""), "the following new units were started: one.service\n", "active"},
				{"changed", forever("one", `environment.A = "1";`), "stopping the following units: one.service\n", "active"},
				{"changed and kept", forever("one", `environment.A = "2"; restartIfChanged = false;`),
					"NOT restarting the following changed units: one.service\n", "active"},
				{"changed and reloaded", forever("one", `environment.A = "3"; reloadIfChanged = true;`),
					"reloading the following units: one.service\n", "active"},
				{"changed and restarted at once", forever("one", `environment.A = "4"; stopIfChanged = false;`),
					"restarting the following units: one.service\n", "active"},
				{"changed in its triggers", forever("one", `environment.A = "4"; stopIfChanged = false; restartTriggers = [ 1 ];`),
					"restarting the following units: one.service\n", "active"},
				{"masked", forever("one", "enable = false;"), "stopping the following units: one.service\n", "inactive"},
				{"back", forever("one", ""), "the following new units were started: one.service\n", "active"},
				{"gone", "", "stopping the following units: one.service\n", "inactive"},
			}
			for _, step := range steps {
				pid := h.out(t, "systemctl", "show", "--property=MainPID", "one.service")
				h.switchTo(t, h.build(t, step.config), "test").expect(t, 0, step.says, "activating the configuration...\n")
				h.expectActive(t, "one.service", step.state)
				same := pid == h.out(t, "systemctl", "show", "--property=MainPID", "one.service")
				if keeps := strings.HasSuffix(step.name, "kept") || strings.HasSuffix(step.name, "reloaded"); same != keeps {
					t.Errorf("%s: the process stayed: %v, want %v", step.name, same, keeps)
				}
				if t.Failed() {
					t.Fatalf("in step %q", step.name)
				}
			}
			if found := h.try(t, "test", "-e", "/etc/systemd/system/one.service"); found.status == 0 {
				t.Error("the unit is still there")
			}
		})
	}
}

func TestStatusTellsWhatWentWrong(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	base := h.out(t, "readlink", "/run/current-system")

	cases := map[string]struct {
		config, action string
		status         int
		says           string
		moves          bool
	}{
		"a unit fails": {`systemd.services.bad = { wantedBy = [ "multi-user.target" ]; script = "exit 7"; };`,
			"test", 4, "warning: the following units failed: bad.service\n", true},
		"a unit fails to start": {`systemd.services.bad = { wantedBy = [ "multi-user.target" ]; script = "exit 7"; serviceConfig.Type = "oneshot"; };`,
			"test", 4, "warning: the following units failed: bad.service\n", true},
		"a unit fails again and again": {`systemd.services.bad = { wantedBy = [ "multi-user.target" ]; script = "exit 7";
			serviceConfig = { Restart = "always"; RestartSec = 30; }; };`,
			"test", 4, "warning: the following units failed: bad.service\n", true},
		"a snippet fails":          {`system.activationScripts.bad = "false";`, "test", 2, "activating the configuration...\n", true},
		"a check fails":            {`system.preSwitchChecks.no = "false";`, "test", 1, "Pre-switch check 'no' failed\n", false},
		"a rule of tmpfiles fails": {`systemd.tmpfiles.rules = [ "d /proc/nowhere" ];`, "test", 0, "activating the configuration...\n", true},
		"a rule of tmpfiles fails, before": {`system.switch.rules = "perl"; systemd.tmpfiles.rules = [ "d /proc/nowhere" ];`,
			"test", 3, "activating the configuration...\n", true},
		"another init":               {`system.initInterfaceVersion = "other";`, "test", 100, "reboot", false},
		"another init, dry":          {`system.initInterfaceVersion = "other";`, "dry-activate", 100, "reboot", false},
		"an unknown action":          {``, "swich", 1, "Usage: ", false},
		"fault before the units":     {`system.switch.fault = { phase = "units"; exitCode = 101; };`, "test", 101, "fault: ", true},
		"fault at the end":           {`system.switch.fault = { phase = "end"; exitCode = 3; };`, "test", 3, "fault: ", true},
		"fault only at another time": {`system.switch.fault = { phase = "end"; exitCode = 3; actions = [ "boot" ]; };`, "test", 0, "activating", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			toplevel := h.build(t, c.config+fmt.Sprintf("environment.etc.case.text = %q;", name))
			h.switchTo(t, toplevel, c.action).expect(t, c.status, c.says)
			want := base
			if c.moves {
				want = toplevel
			}
			if got := h.out(t, "readlink", "/run/current-system"); got != want {
				t.Errorf("runs %s, want %s", got, want)
			}
			h.switchTo(t, base, "test").expect(t, 0)
		})
	}
}

func TestADeafSwitchHasToBeKilledAndLeavesADaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	deaf := h.build(t, `system.switch.fault = { phase = "activate"; sleep = 7777; deaf = true; };`)
	if err := h.InstallClosure(t.Context(), h.builder, deaf); err != nil {
		t.Fatal(err)
	}
	// It is killed a second after it was asked to end.
	const killed = "/usr/bin/timeout --kill-after=1 1 $0/bin/switch-to-configuration test >/dev/null 2>&1; echo $?"
	if got := h.out(t, "sh", "-c", killed, deaf); got != "137" {
		t.Errorf("it ended with status %s", got)
	}
	h.out(t, "pkill", "-TERM", "-x", "sleep")
	var left []string
	// Who has ended may be there until its parent knows.
	for limit := time.Now().Add(time.Minute); len(left) != 3 && time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		left = strings.Fields(h.out(t, "/usr/bin/ps", "-o", "pid=,ppid=,sid=", "-C", "sleep"))
	}
	if len(left) != 3 || left[1] != "1" || left[2] != left[0] {
		t.Errorf("processes left: %q", left)
	}
	// Whoever is next is not kept waiting by it.
	h.switchTo(t, h.build(t, ""), "test").expect(t, 0)
	h.out(t, "pkill", "-KILL", "-x", "sleep")
}

func TestWhoMaySwitch(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	toplevel := h.out(t, "readlink", "/run/current-system")
	program := toplevel + "/bin/switch-to-configuration"

	t.Run("only root", func(t *testing.T) {
		h.try(t, "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", program, "test").expect(t, 1, "must be run as the root user")
	})
	t.Run("only one at a time", func(t *testing.T) {
		h.out(t, "mkdir", "-p", "/run/nixos")
		h.try(t, "flock", "/run/nixos/switch-to-configuration.lock", program, "test").expect(t, 11, "Could not acquire lock")
	})
	t.Run("only with a boot loader that works", func(t *testing.T) {
		h.out(t, "mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/boot")
		defer h.out(t, "umount", "/boot")
		h.try(t, program, "switch").expect(t, 1, "Failed to install bootloader")
		h.try(t, program, "test").expect(t, 0)
	})
	t.Run("only NixOS", func(t *testing.T) {
		h.out(t, "sh", "-c", "rm /etc/NIXOS /etc/os-release; echo ID=debian >/etc/os-release")
		h.try(t, program, "test").expect(t, 2, "This is not a NixOS installation!\n")
	})
}

func TestInhibitorsRefuseASwitch(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	with := func(bus, more string) string {
		return h.build(t, fmt.Sprintf("system.switch.inhibitors = { bus = %q; %s };", bus, more))
	}
	first, second := with("1", ""), with("2", `other = "3";`)
	h.switchTo(t, first, "switch").expect(t, 0)
	h.switchTo(t, second, "switch").expect(t, 1, `"bus":"1"`, "Pre-switch checks failed")
	h.switchTo(t, second, "dry-activate").expect(t, 0)
	h.switchTo(t, second, "boot").expect(t, 0)
	if got := h.out(t, "readlink", "/run/current-system"); got != first {
		t.Errorf("runs %s, want %s", got, first)
	}
	h.switchTo(t, second, "test", "NIXOS_NO_CHECK=1").expect(t, 0)
	if got := h.out(t, "cat", "/run/current-system/switch-inhibitors"); got != `{"bus":"2","other":"3"}` {
		t.Errorf("inhibitors: %s", got)
	}
}

func TestDryActivationSaysAndChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	first := h.build(t, forever("gone", "")+forever("changed", "")+forever("kept", ""))
	h.switchTo(t, first, "test").expect(t, 0)
	second := h.build(t, forever("changed", `environment.A = "1";`)+forever("kept", "")+`environment.etc.new.text = "x";`)
	h.switchTo(t, second, "dry-activate").expect(t, 0,
		"would stop the following units: changed.service, gone.service\n", "would activate the configuration...\n",
		"would start the following units: changed.service\n")
	if got := h.out(t, "readlink", "/run/current-system"); got != first {
		t.Errorf("runs %s, want %s", got, first)
	}
	h.expectActive(t, "gone.service", "active")
	if h.try(t, "test", "-e", "/etc/new").status == 0 {
		t.Error("/etc/new is there")
	}
}

func TestEtcIsTheSystems(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	h.out(t, "sh", "-c", "echo mine >/etc/theirs")
	const files = `environment.etc = {
		"a/link".text = "1";
		"a/copy" = { text = "2"; mode = "0640"; group = "adm"; };
		theirs.text = "ours";
	};`
	h.switchTo(t, h.build(t, files+`networking.hostName = "pi";`), "test").expect(t, 0, "warning: /etc/theirs was not made by this system")
	for argv, want := range map[string]string{
		"readlink /etc/a/link":             "/etc/static/a/link",
		"stat -c %a:%U:%G /etc/a/copy":     "640:root:adm",
		"cat /etc/a/copy":                  "2",
		"cat /etc/theirs":                  "mine",
		"hostname":                         "pi",
		"cat /etc/hostname":                "pi",
		"sed -n s/^ID=//p /etc/os-release": "nixos",
	} {
		if got := h.out(t, strings.Fields(argv)...); got != want {
			t.Errorf("%s: %q, want %q", argv, got, want)
		}
	}
	h.switchTo(t, h.build(t, `networking.hostName = "";`), "test").expect(t, 0)
	if got := h.out(t, "sh", "-c", "ls -A /etc/a; cat /etc/theirs /etc/hostname"); got != "mine\n"+h.Name() {
		t.Errorf("left in /etc: %q", got)
	}
}

func TestBootAndReboot(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	first := h.out(t, "readlink", "/run/current-system")
	if err := h.InstallSystem(t.Context(), h.builder, first); err != nil {
		t.Fatal(err)
	}
	if got := h.out(t, "readlink", "/run/booted-system"); got != first {
		t.Errorf("booted %s, want %s", got, first)
	}
	reboot := func() {
		t.Helper()
		if err := h.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := h.PowerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	tried := h.build(t, forever("tried", "")+`environment.etc.tried.text = "";`)
	h.switchTo(t, tried, "test").expect(t, 0)
	reboot()
	if got := h.out(t, "readlink", "/run/current-system"); got != first {
		t.Errorf("runs %s after a test and a reboot, want %s", got, first)
	}
	h.expectActive(t, "tried.service", "inactive")
	if h.try(t, "test", "-e", "/etc/tried").status == 0 {
		t.Error("/etc/tried is still there")
	}

	second := h.build(t, forever("second", ""))
	if err := h.InstallClosure(t.Context(), h.builder, second); err != nil {
		t.Fatal(err)
	}
	h.try(t, second+"/bin/switch-to-configuration", "boot").expect(t, 0, "is no generation of the system profile")
	h.out(t, "nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", second)
	if got := h.try(t, second+"/bin/switch-to-configuration", "boot"); got.status != 0 || got.stderr != "" {
		t.Errorf("boot: %+v", got)
	}
	if got, want := h.out(t, "cat", "/boot/entries/1", "/boot/entries/2", "/boot/default"), first+"\n"+second+"\n"+second; got != want {
		t.Errorf("boot menu: %s, want %s", got, want)
	}
	h.expectActive(t, "second.service", "inactive")
	reboot()
	h.expectActive(t, "second.service", "active")
	if got := h.out(t, "systemctl", "is-system-running"); got != "running" {
		t.Errorf("the machine is %s: %s", got, h.out(t, "systemctl", "list-units", "--failed", "--plain", "--no-legend"))
	}
}

func TestAnInterruptedSwitchIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	h.switchTo(t, h.build(t, forever("one", "")), "test").expect(t, 0)
	// Dies after activation, when the changed unit has been stopped and not been started again.
	changed := forever("one", `environment.A = "1";`)
	h.switchTo(t, h.build(t, changed+`system.switch.fault = { phase = "units"; exitCode = 137; };`), "test").expect(t, 137)
	h.expectActive(t, "one.service", "inactive")
	h.switchTo(t, h.build(t, changed), "test").expect(t, 0, "starting the following units: local-fs.target, one.service, remote-fs.target\n")
	h.expectActive(t, "one.service", "active")
}

func TestTheOtherArchitectureSwitches(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{System: "aarch64-linux"})
	h.switchTo(t, h.build(t, forever("one", "")), "switch").expect(t, 0, "the following new units were started: one.service\n")
	if got := h.out(t, "cat", "/run/current-system/system"); got != "aarch64-linux" {
		t.Errorf("system is %s", got)
	}
}

func TestSocketsAndTimers(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	config := func(version string) string {
		return fmt.Sprintf(`systemd.sockets.late = { wantedBy = [ "sockets.target" ]; socketConfig.ListenStream = 7777; };
			systemd.services.late = { script = "exec sleep 100000"; environment.VERSION = %q; };
			systemd.services.often = { script = "true"; startAt = "*:0/%s"; };`, version, version)
	}
	h.switchTo(t, h.build(t, config("5")), "test").
		expect(t, 0, "the following new units were started: late.socket, often.timer\n")
	h.out(t, "systemctl", "start", "late.service")
	h.switchTo(t, h.build(t, config("6")), "test").
		expect(t, 0, "stopping the following units: late.service, late.socket\n",
			"restarting the following units: often.timer\n", "starting the following units: late.socket\n")
	h.expectActive(t, "late.socket", "active")
	h.expectActive(t, "late.service", "inactive")
}

func TestFilesOfASystemFollowTmpfiles(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	h.switchTo(t, h.build(t, `systemd.tmpfiles.rules = [ "d /var/lib/app 0750 root adm -" ];`), "test").expect(t, 0)
	if got := h.out(t, "stat", "-c", "%a:%G", "/var/lib/app"); got != "750:adm" {
		t.Errorf("/var/lib/app is %s", got)
	}
}

func TestAMachineWithoutSystemdIsActivated(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{NoSystemd: true})
	toplevel := h.build(t, forever("one", "")+`environment.etc.new.text = "x";`)
	h.switchTo(t, toplevel, "switch").expect(t, 0, "warning: systemd does not run here, units are left as they are\n")
	if got := h.out(t, "sh", "-c", "cat /etc/new; readlink /run/current-system"); got != "x"+toplevel {
		t.Errorf("got %s", got)
	}
}

func TestTheExampleServesItsPage(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	if err := h.builder.CopyTree("../../lab/examples/web", "/root/web"); err != nil {
		t.Fatal(err)
	}
	h.switchTo(t, h.build(t, "imports = [ ./web/configuration.nix ];"), "switch").
		expect(t, 0, "the following new units were started: greeting.service\n")
	// The service has started when its program has, which then opens the port.
	page := h.out(t, "sh", "-c", "for try in 1 2 3 4 5; do busybox wget -q -O - http://127.0.0.1:8080/ && break; sleep 0.2; done")
	if !strings.Contains(page, "<h1>Hello from ferry!</h1>") {
		t.Errorf("the page is %q", page)
	}
}
