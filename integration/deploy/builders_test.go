package deploy_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/agent"
	"ferry/internal/lab"
)

// TestARemoteBuilderOfTheUserBuilds: this machine may build nothing itself, --builders names one that does.
func TestARemoteBuilderOfTheUserBuilds(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Alone: true})
	remote := lab.StartTarget(t, lab.Options{})
	if err := s.Builder.Know(remote); err != nil {
		t.Fatal(err)
	}
	// What a lab target may not do is what a remote builder is for.
	conf := "max-jobs = 4\nsubstituters =\nsandbox = false\nbuild-users-group =\n"
	if err := remote.WriteFile(t.Context(), "/etc/nix/nix.conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Write("web/configuration.nix", site.Configuration("built elsewhere"))
	if o := s.Ferry("build", "--max-jobs", "0", "--builders", ""); o.Status == 0 {
		t.Fatal("a machine that may build nothing built")
	}
	s.Deploy("--max-jobs", "0", "--builders", "ssh://root@"+remote.Name()+" x86_64-linux")
	if got := s.OnTarget("cat", "/etc/greeting"); got != "built elsewhere" {
		t.Errorf("the target greets with %q", got)
	}
	toplevel := s.OnTarget("readlink", "-f", "/run/current-system")
	if _, err := remote.Output(t.Context(), "nix-store", "--check-validity", toplevel); err != nil {
		t.Errorf("the remote builder did not build %s: %v", toplevel, err)
	}
}

// TestSubstituteOnTargetFetchesThereFirst: with the flag the target takes paths from its own cache, without it none.
func TestSubstituteOnTargetFetchesThereFirst(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Alone: true})
	bundle := strings.TrimSuffix(s.Ferry("build").Out, "\n")
	cache := filepath.Join(s.Builder.Home(), "cache")
	s.Must("nix", "--extra-experimental-features", "nix-command", "copy", "--to", "file://"+cache, bundle)
	if out, err := exec.CommandContext(t.Context(), "cp", "-r", s.Builder.Path(cache), filepath.Join(s.Target.Root(), "cache")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conf, err := s.Target.ReadFile(t.Context(), "/etc/nix/nix.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := string(conf) + "\nsubstituters = file:///cache\nrequire-sigs = false\n"
	if err := s.Target.WriteFile(t.Context(), "/etc/nix/nix.conf", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	o := s.Deploy("--substitute-on-target")
	if !strings.Contains(o.Errors, "everything is there already") {
		t.Errorf("ferry shipped what the target's cache had:\n%s", o.Errors)
	}
	if root := s.OnTarget("readlink", "-f", "/etc/nixos/current-configuration"); root != bundle {
		t.Errorf("the GC root is %s, want %s", root, bundle)
	}
	s.Write("web/configuration.nix", site.Configuration("second"))
	o = s.Deploy()
	if strings.Contains(o.Errors, "everything is there already") {
		t.Errorf("without the flag, the target fetched:\n%s", o.Errors)
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
			if err := lab.WriteProgram(file, text, 0o755); err != nil {
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
