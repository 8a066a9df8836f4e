package deploy_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/lab"
)

// TestARemoteBuilderOfTheUserBuilds: this machine may build nothing itself, --builders names one that does.
func TestARemoteBuilderOfTheUserBuilds(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{alone: true})
	remote := lab.StartTarget(t, lab.Options{})
	if err := s.builder.Know(remote); err != nil {
		t.Fatal(err)
	}
	// What a lab target may not do is what a remote builder is for.
	conf := "max-jobs = 4\nsubstituters =\nsandbox = false\nbuild-users-group =\n"
	if err := remote.WriteFile(t.Context(), "/etc/nix/nix.conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	s.write("web/configuration.nix", configuration("built elsewhere"))
	if o := s.ferry("build", "--max-jobs", "0", "--builders", ""); o.status == 0 {
		t.Fatal("a machine that may build nothing built")
	}
	s.deploy("--max-jobs", "0", "--builders", "ssh://root@"+remote.Name()+" x86_64-linux")
	if got := s.onTarget("cat", "/etc/greeting"); got != "built elsewhere" {
		t.Errorf("the target greets with %q", got)
	}
	toplevel := s.onTarget("readlink", "-f", "/run/current-system")
	if _, err := remote.Output(t.Context(), "nix-store", "--check-validity", toplevel); err != nil {
		t.Errorf("the remote builder did not build %s: %v", toplevel, err)
	}
}

// TestSubstituteOnTargetFetchesThereFirst: with the flag the target takes paths from its own cache, without it none.
func TestSubstituteOnTargetFetchesThereFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{alone: true})
	bundle := strings.TrimSuffix(s.ferry("build").out, "\n")
	cache := filepath.Join(s.builder.Home(), "cache")
	s.must("nix", "--extra-experimental-features", "nix-command", "copy", "--to", "file://"+cache, bundle)
	if out, err := exec.CommandContext(t.Context(), "cp", "-r", s.builder.Path(cache), filepath.Join(s.target.Root(), "cache")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conf, err := s.target.ReadFile(t.Context(), "/etc/nix/nix.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := string(conf) + "\nsubstituters = file:///cache\nrequire-sigs = false\n"
	if err := s.target.WriteFile(t.Context(), "/etc/nix/nix.conf", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	o := s.deploy("--substitute-on-target")
	if !strings.Contains(o.errors, "everything is there already") {
		t.Errorf("ferry shipped what the target's cache had:\n%s", o.errors)
	}
	if root := s.onTarget("readlink", "-f", "/etc/nixos/current-configuration"); root != bundle {
		t.Errorf("the GC root is %s, want %s", root, bundle)
	}
	s.write("web/configuration.nix", configuration("second"))
	o = s.deploy()
	if strings.Contains(o.errors, "everything is there already") {
		t.Errorf("without the flag, the target fetched:\n%s", o.errors)
	}
}

// TestEveryAgentRunsOnItsMachine starts each embedded agent, the foreign ones by emulation.
func TestEveryAgentRunsOnItsMachine(t *testing.T) {
	t.Parallel()
	programs, err := agent.Programs()
	if err != nil {
		t.Fatal(err)
	}
	emulators := map[string]string{
		"x86_64": "", "i686": "", "aarch64": "qemu-aarch64-static", "armv7l": "qemu-arm-static", "armv6l": "qemu-arm-static", "riscv64": "qemu-riscv64-static",
	}
	machines := map[string]elf.Machine{
		"x86_64": elf.EM_X86_64, "i686": elf.EM_386, "aarch64": elf.EM_AARCH64, "armv7l": elf.EM_ARM, "armv6l": elf.EM_ARM, "riscv64": elf.EM_RISCV,
	}
	for _, p := range programs {
		t.Run(p.Machine, func(t *testing.T) {
			t.Parallel()
			text, err := p.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "agent")
			if err := os.WriteFile(file, text, 0o755); err != nil {
				t.Fatal(err)
			}
			parsed, err := elf.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer parsed.Close()
			if parsed.Machine != machines[p.Machine] {
				t.Errorf("the program is for %v", parsed.Machine)
			}
			if libraries, err := parsed.ImportedLibraries(); err != nil || len(libraries) > 0 {
				t.Errorf("the program is not static: it needs %q (%v)", libraries, err)
			}
			argv := []string{file, "build-probe"}
			if emulator := emulators[p.Machine]; emulator != "" {
				argv = append([]string{emulator}, argv...)
			}
			out := filepath.Join(t.TempDir(), "out")
			cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
			cmd.Env = append(os.Environ(), "out="+out)
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			if _, err := os.Stat(out); err != nil {
				t.Error(err)
			}
		})
	}
	if len(programs) != len(machines) {
		t.Errorf("%d agents are embedded, want %d", len(programs), len(machines))
	}
}
