package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A run is one binary started four times, and envStage tells each start what it is. The outer process prepares base
// roots, starts the janitor and then the init, and forwards signals. The init is PID 1 of the new namespaces: it mounts,
// starts the inside process and reaps. The inside process is the test binary (or ferry-lab) proper. The janitor, in a
// session of its own, cleans what no namespace takes with it, as soon as the outer process is gone, however it went.
const (
	stageInit    = "init"
	stageInside  = "inside"
	stageJanitor = "janitor"
	// stageAccount is not of a run: it is a short visit to a machine (see Target.Account).
	stageAccount = "account"
)

// statusTrouble is the exit status of a run whose lab could not be set up.
const statusTrouble = 1

// Main runs the tests of a package inside a lab, with the flags, output and exit status that go test expects, and exits.
// It belongs into TestMain. The base roots of bookworm and trixie, and of what FERRY_LAB_SUITES names besides (separated
// by spaces), are there when the tests start.
func Main(m *testing.M) {
	suites := append([]string{"bookworm", "trixie"}, strings.Fields(os.Getenv(envSuites))...)
	os.Exit(Enter(suites, os.Stderr, m.Run))
}

// Enter runs the program again inside a new lab and returns its exit status; in there, Enter calls inside, whose result
// is that status. Call it before anything else: all that comes before it happens four times. The base roots of suites
// are made first if they are missing. What goes wrong with the lab itself is written to log, and the status is then 1.
//
// SIGINT, SIGTERM, SIGHUP and SIGQUIT reach the inside process only as forwarded by Enter. When the outer process
// dies, by SIGKILL too, every process, mount and interface of the lab dies with it; folders and cgroups follow
// within seconds.
func Enter(suites []string, log io.Writer, inside func() int) int {
	var err error
	status := statusTrouble
	switch os.Getenv(envStage) {
	case stageInside:
		return inside()
	case stageInit:
		status, err = initStage()
	case stageJanitor:
		err = janitorStage(os.Stdin)
		status = 0
	case stageAccount:
		err = accountStage()
		status = 0
	default:
		status, err = outerStage(suites, log)
	}
	if err != nil {
		fmt.Fprintf(log, "ferry-lab: error: %v\n", err)
		return statusTrouble
	}
	return status
}

func outerStage(suites []string, log io.Writer) (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("a lab needs root: it makes namespaces, mounts and interfaces")
	}
	ctx, stop := signal.NotifyContext(context.Background(), forwarded...)
	defer stop()
	if err := Prepare(ctx, suites, log); err != nil {
		return 0, err
	}
	raiseWatches()
	scratch, err := os.MkdirTemp("", "ferry-lab-")
	if err != nil {
		return 0, err
	}
	// Targets run as other users and must be able to reach their folders below it.
	if err := os.Chmod(scratch, 0o755); err != nil {
		return 0, err
	}
	janitor, err := startJanitor(scratch)
	if err != nil {
		return 0, errors.Join(err, os.RemoveAll(scratch))
	}
	status, err := runInit(scratch, janitor)
	return status, errors.Join(err, janitor.finish())
}

// watches is how many inotify instances root needs for the systemds of some thirty machines, ten each. The kernel's own limit
// of 128 makes units of the later ones fail.
const watches = 1024

// raiseWatches raises the limit where it is lower. It is of the whole machine, and stays: other runs may be at work.
func raiseWatches() {
	const limit = "/proc/sys/fs/inotify/max_user_instances"
	text, err := os.ReadFile(limit)
	if err != nil {
		return
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n < watches {
		// Few machines at once do without.
		_ = os.WriteFile(limit, []byte(strconv.Itoa(watches)), 0o644)
	}
}

// Prepare makes the base roots of suites and the lab's nixpkgs where they are missing, side by side, and says so on log.
// It needs the network, which is not there inside a lab.
func Prepare(ctx context.Context, suites []string, log io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(suites)+1)
	var wait sync.WaitGroup
	for i, suite := range suites {
		if root, err := basePath(suite); err == nil && !isDir(root) {
			fmt.Fprintf(log, "ferry-lab: making the base root of %s in %s, which takes about a minute\n", suite, filepath.Dir(root))
		}
		wait.Go(func() {
			if _, errs[i] = Base(ctx, suite); errs[i] != nil {
				cancel()
			}
		})
	}
	wait.Go(func() {
		if _, errs[len(suites)] = Nixpkgs(ctx); errs[len(suites)] != nil {
			cancel()
		}
	})
	wait.Wait()
	return errors.Join(errs...)
}

var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}

// runInit starts the program again as PID 1 of new namespaces and waits for it.
func runInit(scratch string, janitor *janitor) (int, error) {
	// The kernel sends Pdeathsig when the thread that forked ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := stageCommand(stageInit, scratch)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
		// Else the terminal would send the lab's processes a Ctrl-C that is also forwarded.
		Setpgid: true,
	}
	return runForwarding(cmd, func() error { return janitor.watch(cmd.Process.Pid) })
}

// runForwarding starts cmd, calls started, and passes on signals until it ends. It returns the exit status.
func runForwarding(cmd *exec.Cmd, started func() error) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	if err := started(); err != nil {
		return 0, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				// An error only means that it has ended already.
				_ = cmd.Process.Signal(s)
			}
		}
	})
	err := cmd.Wait()
	close(done)
	wait.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return exitStatus(cmd.ProcessState), nil
}

// exitStatus gives a process killed by a signal the status that a shell would.
func exitStatus(state *os.ProcessState) int {
	if status, ok := state.Sys().(unix.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// stageCommand is this program with its own arguments, to be started as another stage of the run.
func stageCommand(stage, scratch string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envStage+"="+stage, envScratch+"="+scratch)
	return cmd
}
