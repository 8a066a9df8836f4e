package server

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"
	"ferry/internal/run"
)

func TestFactsOfANixOS(t *testing.T) {
	m := newMachine(t)
	m.Write(string(oldSystem)+"/system", "aarch64-linux")
	m.Write("/proc/sys/kernel/random/boot_id", "b00t\n")
	m.Write(string(oldSystem)+"/init-interface-version", "systemd 2")
	m.Link(m.AddToStore("switch-inhibitors", "{}\n"), string(oldSystem)+"/switch-inhibitors")
	if err := os.Remove(m.Path("/run/booted-system")); err != nil {
		t.Fatal(err)
	}
	m.Link(string(newSystem), "/run/booted-system")
	facts := gatherFacts(t.Context(), new(run.Runner), m.Root)
	// The link to the running system leads out of the fake target, so its system file is looked for at the real one.
	facts.System, facts.Machine, facts.Host, facts.StoreFree, facts.BootFree, facts.StoreCompresses, facts.Time = "", "", "", 0, 0, false, 0
	facts.ProfileTime = 0
	want := agent.Facts{
		NixOS: true, Nix: "2.99.0", Current: string(oldSystem), Booted: string(newSystem), Profile: string(oldSystem),
		Bundle: string(oldBundle), Committed: string(oldSystem), BootID: "b00t", Generation: 1,
		InitInterface: "systemd 2", Inhibitors: "{}\n",
	}
	if !reflect.DeepEqual(facts, want) {
		t.Errorf("got  %+v\nwant %+v", facts, want)
	}
}

func TestFactsOfAnEmptyMachine(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	facts := gatherFacts(t.Context(), new(run.Runner), machine.Root{Dir: t.TempDir()})
	if facts.NixOS || facts.Nix != "" || facts.NixError != "nix-store is not in PATH" || facts.Systemd != 0 || facts.Current+facts.Bundle+facts.Committed != "" {
		t.Errorf("%+v", facts)
	}
	if facts.Host == "" || facts.Machine == "" || facts.System == "" || facts.Time == 0 {
		t.Errorf("%+v", facts)
	}
}

func TestFactsSayWhyNixDoesNotWork(t *testing.T) {
	m := newMachine(t)
	m.Program("/bin/nix-store", "#!/bin/sh\necho 'error: cannot open the database' >&2\nexit 1\n")
	if facts := gatherFacts(t.Context(), new(run.Runner), m.Root); facts.Nix != "" || facts.NixError != "nix-store: exit status 1: error: cannot open the database" {
		t.Errorf("%+v", facts)
	}
}

func TestSystemFollowsFromWhatTheMachineSays(t *testing.T) {
	for name, c := range map[string]struct{ file, text, machine, want string }{
		"x86_64":             {"", "", "x86_64", "x86_64-linux"},
		"arm64":              {"", "", "arm64", "aarch64-linux"},
		"i586":               {"", "", "i586", "i686-linux"},
		"armv7l":             {"", "", "armv7l", "armv7l-linux"},
		"armv8l":             {"", "", "armv8l", "armv7l-linux"},
		"armv6l":             {"", "", "armv6l", "armv6l-linux"},
		"riscv64":            {"", "", "riscv64", "riscv64-linux"},
		"nix.conf":           {"/etc/nix/nix.conf", "# system = no\nmax-jobs = 0\nsystem = aarch64-linux\n", "x86_64", "aarch64-linux"},
		"nix.conf of others": {"/etc/nix/nix.conf", "system-features = kvm\nextra-platforms = x\n", "x86_64", "x86_64-linux"},
		"the running system": {"/run/current-system/system", "i686-linux", "x86_64", "i686-linux"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &fakeMachine{machinetest.New(t)}
			if c.file != "" {
				m.Write(c.file, c.text)
			}
			if got := nixSystem(m.Root, c.machine); got != c.want {
				t.Errorf("%s", got)
			}
		})
	}
}

func TestStorePathFollowsLinksToAPathThatIsThere(t *testing.T) {
	m := newMachine(t)
	m.Link("/nix/var/nix/profiles/per-user", "/nix/var/profiles")
	m.Link(string(newSystem)+"-gone", "/gone")
	m.Link(string(newSystem)+"/bin", "/below")
	m.Link("loop", "/loop")
	m.Link("../../run/../run/current-system", "/nix/var/relative")
	m.Write("/file", "")
	for in, want := range map[string]string{
		systemProfile: string(oldSystem), "/run/current-system": string(oldSystem), string(newSystem): string(newSystem),
		"/nix/var/relative": string(oldSystem), "/gone": "", "/below": "", "/loop": "", "/file": "", "/missing": "",
	} {
		if got := m.StorePath(in); got != want {
			t.Errorf("%s: %q", in, got)
		}
	}
}

func TestSystemdVersion(t *testing.T) {
	for said, want := range map[string]int{
		"systemd 252 (252.39-1~deb12u1)\n+PAM": 252, "systemd 258.1 (258.1)": 258, "systemd 261~rc2 (261~rc2-1)": 261, "systemd 232": 232, "": 0, "nonsense": 0, "systemd x": 0,
	} {
		m := newMachine(t)
		m.Program("/bin/systemctl", "#!/bin/sh\ncat <<'X'\n"+said+"\nX\n")
		if got := systemdVersion(t.Context(), new(run.Runner)); got != want {
			t.Errorf("%q: %d", said, got)
		}
	}
}

func TestOldAgentsAreRemovedOnlyByWhoHoldsTheLock(t *testing.T) {
	m := newMachine(t)
	hour := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{"agent-old", "agent-mine", ".new-old", ".new-recent", "other"} {
		m.Write(filepath.Join(agent.Folder, name), "")
	}
	if err := os.Chtimes(m.Path(agent.Folder+"/.new-old"), hour, hour); err != nil {
		t.Fatal(err)
	}
	left := func() int {
		entries, err := os.ReadDir(m.Path(agent.Folder))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	held, _, err := takeLock(m.Root, locked("s1"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	opts := locked("s2")
	opts.Program = m.Path(agent.Folder + "/agent-mine")
	f := m.connect(opts)
	if f.hello.Facts.Lock == nil || f.hello.Facts.Lock.Who != "alice@here" {
		t.Errorf("the lock: %+v", f.hello.Facts.Lock)
	}
	f.ask(agent.Request{Method: "none"})
	if n := left(); n != 5 {
		t.Errorf("%d files are left while another one deploys", n)
	}
	held.release()
	f = m.connect(opts)
	f.ask(agent.Request{Method: "none"})
	if n := left(); n != 3 {
		t.Errorf("%d files are left", n)
	}
	for _, name := range []string{"agent-mine", ".new-recent", "other"} {
		if !m.Exists(filepath.Join(agent.Folder, name)) {
			t.Errorf("%s is gone", name)
		}
	}
}

func TestEnvironmentPutsTheSystemsOwnProgramsFirst(t *testing.T) {
	t.Setenv("PATH", "/home/alice/bin")
	t.Setenv("NIX_REMOTE", "daemon")
	t.Setenv("NIXOS_INSTALL_BOOTLOADER", "1")
	if err := Environment(); err != nil {
		t.Fatal(err)
	}
	list := filepath.SplitList(os.Getenv("PATH"))
	if list[0] != "/run/wrappers/bin" || list[len(list)-1] != "/home/alice/bin" {
		t.Errorf("PATH is %q", list)
	}
	for _, name := range []string{"NIX_REMOTE", "NIXOS_INSTALL_BOOTLOADER"} {
		if value, set := os.LookupEnv(name); set {
			t.Errorf("%s is %q", name, value)
		}
	}
	t.Setenv("PATH", "")
	if err := Environment(); err != nil || filepath.SplitList(os.Getenv("PATH"))[0] == "" {
		t.Errorf("PATH is %q, %v", os.Getenv("PATH"), err)
	}
}

func TestBuildProbeBuilds(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("out", out)
	if err := BuildProbe(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(out); err != nil || len(text) == 0 {
		t.Errorf("%q, %v", text, err)
	}
	t.Setenv("out", "")
	if err := BuildProbe(); err == nil {
		t.Error("it builds nothing without a word")
	}
}

func TestServeEndsWithItsInput(t *testing.T) {
	m := newMachine(t)
	f := m.connect(locked("s1"))
	_ = f.in.Close()
	if err := <-f.ended; err != nil {
		t.Errorf("got %v", err)
	}
	f.ended <- nil
	held, holder, err := takeLock(m.Root, locked("s2"), time.Now())
	if err != nil || holder != nil {
		t.Fatalf("the lock after it: %v, %v", holder, err)
	}
	held.release()
}

func TestANixThatIsBusyIsAskedAgain(t *testing.T) {
	for _, problem := range []string{"SQLite database '/nix/var/nix/db/db.sqlite' is busy", "'/nix/var/nix/db/schema' is corrupt"} {
		m := newMachine(t)
		asked := filepath.Join(t.TempDir(), "asked")
		m.Program("/bin/nix-store", "#!/bin/sh\nif mkdir "+asked+"; then echo \"error: "+problem+"\" >&2; exit 1; fi\necho 'nix-store (Nix) 2.8.0'\n")
		if facts := gatherFacts(t.Context(), new(run.Runner), m.Root); facts.Nix != "2.8.0" {
			t.Errorf("%+v", facts)
		}
	}
}
