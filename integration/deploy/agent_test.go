package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// agents lists what is installed on the target, with owner, mode and the hash of the content.
func (s *site) agents() []string {
	s.t.Helper()
	return strings.Fields(s.onTarget("sh", "-c", `cd /var/lib/ferry && for f in *; do
		echo "$f,$(stat -c %U:%G:%a "$f"),$(sha256sum <"$f" | cut -c1-64)"; done`))
}

// TestTheAgentIsInstalledOnceAndVerified follows the agent on a target through its life.
func TestTheAgentIsInstalledOnceAndVerified(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.deploy()
	installed := s.agents()
	if len(installed) != 1 {
		t.Fatalf("the target has %q", installed)
	}
	name, rest, _ := strings.Cut(installed[0], ",")
	hash := strings.TrimPrefix(name, "agent-")
	if rest != "root:root:755,"+hash {
		t.Errorf("the agent is %q", installed[0])
	}
	program := "/var/lib/ferry/" + name
	inode := func() string { return s.onTarget("stat", "-c", "%i", program) }

	before := inode()
	s.deploy()
	if got := inode(); got != before {
		t.Error("the agent was installed again")
	}

	// A copy, since the agent that was just used may still be about to end.
	s.onTarget("sh", "-euc", `cp "$0" /var/tmp/damaged; printf x | dd of=/var/tmp/damaged bs=1 seek=5000 conv=notrunc
		chmod 755 /var/tmp/damaged; mv /var/tmp/damaged "$0"`, program)
	s.onTarget("touch", "/var/lib/ferry/agent-of-another-version", "/var/lib/ferry/.new-just-now")
	s.onTarget("touch", "-d", "2001-01-01 00:00", "/var/lib/ferry/.new-left-behind", "/var/lib/ferry/agent-of-long-ago")
	s.deploy()
	// Ferry does not wait for the agent to tidy up.
	until(t, "only the agent and what may be under way are left", func() bool {
		return s.onTarget("ls", "-A", "/var/lib/ferry") == ".new-just-now\n"+name
	})
	s.onTarget("rm", "/var/lib/ferry/.new-just-now")
	if got := s.agents(); !slices.Equal(got, installed) {
		t.Errorf("the damaged agent is now %q, want %q", got, installed)
	}
}

// TestMemoryStaysFlatWhateverThePathsSize ships a path of 1.5 GB and looks at every process on the target meanwhile.
func TestMemoryStaysFlatWhateverThePathsSize(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.write("web/configuration.nix", with(configuration("first"), `  environment.etc.big.source = derivation {
    name = "big"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "truncate -s 1500M $out" ];
  };`))
	// The kernel keeps each process's peak: one look while it lives is enough, and nix-store lives until the very end.
	space := s.onTarget("readlink", "/proc/self/ns/pid")
	quit, peak := make(chan struct{}), make(chan map[string]int)
	go func() {
		highest := map[string]int{}
		for {
			select {
			case <-quit:
				peak <- highest
				return
			case <-time.After(20 * time.Millisecond):
				peaks(space, highest)
			}
		}
	}()
	o := s.deploy()
	close(quit)
	highest := <-peak
	o.says(t, "1.6 GB as ")
	t.Logf("KiB: %v", highest)
	for program, limit := range map[string]int{"agent": 48 << 10, "nix-store": 64 << 10} {
		if highest[program] == 0 || highest[program] > limit {
			t.Errorf("%s had %d KiB in memory, the limit is %d", program, highest[program], limit)
		}
	}
	if size := s.onTarget("stat", "-L", "-c", "%s", "/etc/big"); size != strconv.Itoa(1500<<20) {
		t.Errorf("the target has %s bytes of it", size)
	}
}

// peaks raises highest to the largest resident sizes, in KiB, that the agent and nix-store processes of a pid namespace have had.
func peaks(space string, highest map[string]int) {
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		// A process may end between any two of these.
		name, err := os.ReadFile(folder + "/comm")
		if err != nil {
			continue
		}
		program := "nix-store"
		if strings.HasPrefix(string(name), "agent-") {
			program = "agent"
		} else if strings.TrimSpace(string(name)) != program {
			continue
		}
		if where, err := os.Readlink(folder + "/ns/pid"); err != nil || where != space {
			continue
		}
		status, err := os.ReadFile(folder + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			var kib int
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
				highest[program] = max(highest[program], kib)
			}
		}
	}
}

// TestAGarbageCollectionOnTheTargetTakesNothingOfADeployment collects garbage in the middle of the ship, and between ship and
// activation.
func TestAGarbageCollectionOnTheTargetTakesNothingOfADeployment(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.deploy()
	// Many paths, of which some are there already and belong to no root, and a last one that takes its time.
	var options strings.Builder
	for i := range 40 {
		fmt.Fprintf(&options, "  environment.etc.%q.text = \"%s\";\n", fmt.Sprintf("file%d", i), strings.Repeat("x", 1000+i))
	}
	s.write("web/configuration.nix", with(configuration("first"), options.String()+`
  system.switch.fault = { phase = "check"; sleep = 2; actions = [ "test" ]; };
  environment.etc.noise.source = derivation {
    name = "noise"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "head -c 2000000 /dev/urandom >$out" ];
  };`))
	toplevel := s.toplevel(s.bundle())
	var some []string
	for path := range strings.FieldsSeq(s.must("nix-store", "--query", "--requisites", toplevel)) {
		if strings.Contains(filepath.Base(path), "-etc-file1") {
			some = append(some, path)
		}
	}
	if err := s.target.InstallClosure(t.Context(), s.builder, some...); err != nil {
		t.Fatal(err)
	}
	if err := s.target.Bandwidth(t.Context(), 2_000_000); err != nil {
		t.Fatal(err)
	}
	cmd := s.command("deploy", "--sudo-password-file", s.password)
	ended := make(chan outcome, 1)
	go func() { ended <- s.run(cmd) }()

	valid := func(path string) bool {
		return s.target.Command(t.Context(), "nix-store", "--check-validity", path).Run() == nil
	}
	until(t, "the ship is in its middle", func() bool {
		out, _ := s.target.Command(t.Context(), "sh", "-c", "ls -d /nix/store/*-etc-file[2-9]*").Output()
		return len(out) > 0
	})
	collect := func() *exec.Cmd { return s.target.Command(t.Context(), "nix-store", "--gc") }
	if out, err := collect().CombinedOutput(); err != nil {
		t.Fatalf("garbage collection: %v: %s", err, out)
	}
	for _, path := range some {
		if !valid(path) {
			t.Fatalf("%s, which the target had already, is gone", path)
		}
	}
	if valid(toplevel) {
		t.Fatal("the ship was over already")
	}
	if err := s.target.Bandwidth(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	until(t, "the activation begins", func() bool {
		out, _ := s.target.Command(t.Context(), "sh", "-c", "ls -d /run/ferry/*-activate").Output()
		return len(out) > 0
	})
	s.onTarget("nix-store", "--gc")
	o := <-ended
	if o.status != 0 {
		t.Fatalf("ferry deploy: status %d", o.status)
	}
	bundle := s.bundle()
	for _, path := range []string{bundle, toplevel} {
		if !valid(path) {
			t.Errorf("%s is gone", path)
		}
	}
	s.onTarget("nix-store", "--gc")
	s.onTarget("nix-store", "--verify", "--check-contents")
	s.deploy().says(t, "web: nothing to do")
	if left := s.onTarget("ls", "-A", "/nix/var/nix/gcroots/ferry"); left != "current-configuration" {
		t.Errorf("ferry's GC roots are %s", left)
	}
}
