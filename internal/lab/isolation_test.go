package lab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// otherLab is a lab of its own with one running target, started from within this one.
type otherLab struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	scratch string
	pids    []string
}

func startOtherLab(t *testing.T, status string) *otherLab {
	t.Helper()
	l := &otherLab{cmd: exec.CommandContext(t.Context(), "/proc/self/exe")}
	l.cmd.Env = append(os.Environ(), envStage+"=", envScratch+"=", envVictim+"="+status)
	l.cmd.Stderr = os.Stderr
	l.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	var err error
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.out = bufio.NewReader(out)
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if l.scratch, err = l.out.ReadString('\n'); err != nil {
		t.Fatalf("the other lab did not start: %v", err)
	}
	l.scratch = strings.TrimSpace(l.scratch)
	l.pids = processesOf(l.scratch)
	return l
}

// ask returns the machine id of the lab's target.
func (l *otherLab) ask(t *testing.T) string {
	t.Helper()
	if _, err := fmt.Fprintln(l.in); err != nil {
		t.Fatal(err)
	}
	id, err := l.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// processesOf lists the processes of a lab: those in its cgroups and those that have its environment.
func processesOf(scratch string) []string {
	var pids []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cgroup, _ := os.ReadFile(dir + "/cgroup")
		environ, _ := os.ReadFile(dir + "/environ")
		if strings.Contains(string(cgroup), filepath.Base(scratch)+"/") || strings.Contains(string(environ), envScratch+"="+scratch) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

// remains lists what is left of a lab.
func (l *otherLab) remains() []string {
	found := []string{}
	for _, pid := range l.pids {
		// A zombie that waits for its parent has ended.
		if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
			found = append(found, "process "+string(stat))
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/", binfmtMount + "/", filepath.Dir(l.scratch) + "/"} {
		paths, _ := filepath.Glob(pattern + filepath.Base(l.scratch))
		found = append(found, paths...)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.scratch) {
			found = append(found, "mount "+line)
		}
	}
	return found
}

func TestALabThatIsKilledLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]unix.Signal{
		"killed": unix.SIGKILL, "interrupted": unix.SIGINT, "terminated": unix.SIGTERM, "hung up": unix.SIGHUP,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startOtherLab(t, "0")
			if before := l.remains(); len(before) < 10 || len(l.pids) < 10 {
				t.Fatalf("only %q and processes %q are there while it runs: this test would not notice what is left", before, l.pids)
			}
			// To the whole group, as a terminal or a test runner does.
			if err := unix.Kill(-l.cmd.Process.Pid, signal); err != nil {
				t.Fatal(err)
			}
			if err := l.cmd.Wait(); err == nil {
				t.Error("it ended with status 0")
			}
			deadline := time.Now().Add(20 * time.Second)
			for len(l.remains()) > 0 && time.Now().Before(deadline) {
				time.Sleep(50 * time.Millisecond)
			}
			for _, what := range l.remains() {
				t.Errorf("left behind: %s", what)
			}
		})
	}
}

func TestTwoLabsDoNotMeet(t *testing.T) {
	t.Parallel()
	first, second := startOtherLab(t, "0"), startOtherLab(t, "0")
	one, two := first.ask(t), second.ask(t)
	if one == two {
		t.Errorf("both have a target with machine id %s", one)
	}
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait()
	if again := second.ask(t); again != two {
		t.Errorf("after the first was killed, the second's target has machine id %s, not %s", again, two)
	}
	second.in.Close()
	if err := second.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestALabEndsWithTheStatusOfWhatRanInIt(t *testing.T) {
	t.Parallel()
	l := startOtherLab(t, "7")
	l.in.Close()
	_ = l.cmd.Wait()
	if got := l.cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("status %d, want 7", got)
	}
	if left := l.remains(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestNoMachineStartsOutsideALab(t *testing.T) {
	t.Setenv(envStage, "none")
	if _, err := Start(t.Context(), Options{}); err != ErrOutside {
		t.Errorf("Start: %v", err)
	}
	if _, err := OpenBuilder(t.Context(), BuilderOptions{}); err != ErrOutside {
		t.Errorf("OpenBuilder: %v", err)
	}
}
