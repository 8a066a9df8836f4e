package deploy_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// agents lists what is installed on the target, with owner, mode and the hash of the content.
func agents(s *site.Site) []string {
	s.T.Helper()
	return strings.Fields(s.OnTarget("sh", "-c", `cd /var/lib/ferry && for f in *; do
		echo "$f,$(stat -c %U:%G:%a "$f"),$(sha256sum <"$f" | cut -c1-64)"; done`))
}

// TestTheAgentIsInstalledOnceAndVerified follows the agent on a target through its life.
func TestTheAgentIsInstalledOnceAndVerified(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Deploy()
	installed := agents(s)
	if len(installed) != 1 {
		t.Fatalf("the target has %q", installed)
	}
	name, rest, _ := strings.Cut(installed[0], ",")
	hash := strings.TrimPrefix(name, "agent-")
	if rest != "root:root:755,"+hash {
		t.Errorf("the agent is %q", installed[0])
	}
	program := "/var/lib/ferry/" + name
	// Checks connect with it, as the user who logged in.
	said := s.OnTarget("su", "alice", "-c", program+" dial localhost:22 </dev/null; "+program+" dial localhost:1 2>&1 || true")
	if want := regexp.MustCompile(`^ferry-agent/1 connected\nSSH-2\.0-.*\r\nferry-agent: connect to localhost:1: connection refused$`); !want.MatchString(said) {
		t.Errorf("called to connect, it says %q", said)
	}
	inode := func() string { return s.OnTarget("stat", "-c", "%i", program) }

	before := inode()
	s.Deploy()
	if got := inode(); got != before {
		t.Error("the agent was installed again")
	}

	// A copy, since the agent that was just used may still be about to end.
	s.OnTarget("sh", "-euc", `cp "$0" /var/tmp/damaged; printf x | dd of=/var/tmp/damaged bs=1 seek=5000 conv=notrunc
		chmod 755 /var/tmp/damaged; mv /var/tmp/damaged "$0"`, program)
	s.OnTarget("touch", "/var/lib/ferry/agent-of-another-version", "/var/lib/ferry/.new-just-now")
	s.OnTarget("touch", "-d", "2001-01-01 00:00", "/var/lib/ferry/.new-left-behind", "/var/lib/ferry/agent-of-long-ago")
	s.Deploy()
	// Ferry does not wait for the agent to tidy up.
	site.Until(t, "only the agent and what may be under way are left", func() bool {
		return s.OnTarget("ls", "-A", "/var/lib/ferry") == ".new-just-now\n"+name
	})
	s.OnTarget("rm", "/var/lib/ferry/.new-just-now")
	if got := agents(s); !slices.Equal(got, installed) {
		t.Errorf("the damaged agent is now %q, want %q", got, installed)
	}
}

// TestMemoryStaysFlatWhateverThePathsSize ships a path of 1.5 GB to a machine with 1 GB of memory and looks at every process
// there meanwhile.
func TestMemoryStaysFlatWhateverThePathsSize(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{Memory: 1 << 30}})
	s.Write("web/configuration.nix", site.With(site.Configuration("first"), `  environment.etc.big.source = derivation {
    name = "big"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "truncate -s 1500M $out" ];
  };`))
	// The kernel keeps each process's peak: one look while it lives is enough, and nix-store lives until the very end.
	space := s.OnTarget("readlink", "/proc/self/ns/pid")
	quit, peak := make(chan struct{}), make(chan map[string]int)
	go func() {
		highest := map[string]int{}
		for {
			select {
			case <-quit:
				peak <- highest
				return
			case <-time.After(20 * time.Millisecond):
				site.Peaks(space, highest)
			}
		}
	}()
	o := s.Deploy()
	close(quit)
	highest := <-peak
	o.Says(t, "1.6 GB as ")
	t.Logf("KiB: %v", highest)
	for program, limit := range map[string]int{"agent": 48 << 10, "nix-store": 64 << 10} {
		if highest[program] == 0 || highest[program] > limit {
			t.Errorf("%s had %d KiB in memory, the limit is %d", program, highest[program], limit)
		}
	}
	if size := s.OnTarget("stat", "-L", "-c", "%s", "/etc/big"); size != strconv.Itoa(1500<<20) {
		t.Errorf("the target has %s bytes of it", size)
	}
	if n, err := s.Target.OOMKills(); err != nil || n > 0 {
		t.Errorf("%d processes were killed for want of memory, %v", n, err)
	}
}

// TestAGarbageCollectionOnTheTargetTakesNothingOfADeployment collects garbage in the middle of the ship, and between ship and
// activation.
func TestAGarbageCollectionOnTheTargetTakesNothingOfADeployment(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Deploy()
	// Many paths, of which some are there already and belong to no root, and a last one that takes its time.
	var options strings.Builder
	for i := range 40 {
		fmt.Fprintf(&options, "  environment.etc.%q.text = \"%s\";\n", fmt.Sprintf("file%d", i), strings.Repeat("x", 1000+i))
	}
	s.Write("web/configuration.nix", site.With(site.Configuration("first"), options.String()+`
  system.switch.fault = { phase = "check"; sleep = 2; actions = [ "test" ]; };
  environment.etc.noise.source = derivation {
    name = "noise"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "head -c 2000000 /dev/urandom >$out" ];
  };`))
	toplevel := s.Toplevel(s.Bundle())
	var some []string
	for path := range strings.FieldsSeq(s.Must("nix-store", "--query", "--requisites", toplevel)) {
		if strings.Contains(filepath.Base(path), "-etc-file1") {
			some = append(some, path)
		}
	}
	if err := s.Target.InstallClosure(t.Context(), s.Builder, some...); err != nil {
		t.Fatal(err)
	}
	// The ship waits for this test, on however busy a machine.
	if err := s.Target.Bandwidth(t.Context(), 250_000); err != nil {
		t.Fatal(err)
	}
	cmd := s.Command("deploy", "--sudo-password-file", s.Password)
	ended := make(chan site.Outcome, 1)
	go func() { ended <- s.Run(cmd) }()

	valid := func(path string) bool {
		return s.Target.Command(t.Context(), "nix-store", "--check-validity", path).Run() == nil
	}
	site.Until(t, "the ship is in its middle", func() bool {
		out, _ := s.Target.Command(t.Context(), "sh", "-c", "ls -d /nix/store/*-etc-file[2-9]*").Output()
		return len(out) > 0
	})
	collect := func() *exec.Cmd { return s.Target.Command(t.Context(), "nix-store", "--gc") }
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
	if err := s.Target.Bandwidth(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	site.Until(t, "the activation begins", func() bool {
		out, _ := s.Target.Command(t.Context(), "sh", "-c", "ls -d /run/ferry/*-switch").Output()
		return len(out) > 0
	})
	s.OnTarget("nix-store", "--gc")
	o := <-ended
	if o.Status != 0 {
		t.Fatalf("ferry deploy: status %d", o.Status)
	}
	bundle := s.Bundle()
	for _, path := range []string{bundle, toplevel} {
		if !valid(path) {
			t.Errorf("%s is gone", path)
		}
	}
	s.OnTarget("nix-store", "--gc")
	s.OnTarget("nix-store", "--verify", "--check-contents")
	s.Deploy().Says(t, "web: nothing to do")
	if left := s.OnTarget("ls", "-A", "/nix/var/nix/gcroots/ferry"); left != "current-configuration\nprevious\nprevious-system" {
		t.Errorf("ferry's GC roots are %s", left)
	}
}
