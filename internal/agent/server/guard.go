package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/run"

	"golang.org/x/sys/unix"
)

// The files of a guarded switch in its job's folder, besides those of every job.
const (
	stateFile     = "state"   // guardState: how far it is
	expectFolder  = "expect"  // a file for each token that confirms it, with its hash; every agent that follows it adds its own
	verdictFile   = "verdict" // instruction: what ferry decided, through an agent
	confirmFolder = "confirm" // where the login user writes the token
)

// guard is the process of a guarded switch. It arms a way back, runs the new system, and keeps it only if it is confirmed in
// time: otherwise it goes back to what ran before. It needs neither a connection nor ferry for that. A guard that is
// killed is succeeded by the process that the timer starts (see RunRollback).
type guard struct {
	root    root
	dir     string
	job     Job
	log     io.Writer
	logFile *os.File
	runner  *run.Runner
	timers  *timers
	state   guardState
	// pause is the time between two looks at what has been confirmed.
	pause time.Duration
	// leave is closed when the machine is shut down, or somebody stops the unit. A guard that waits then leaves, as if it had
	// been killed: a shutdown must not wait for it, and is a way back of its own.
	leave <-chan struct{}
	left  bool
}

// guardState is what the file state says, for those who follow and for a successor.
type guardState struct {
	Phase agent.Phase `json:"phase"`
	Pid   int         `json:"pid"`
	// Deadline is when the phase is over at the latest, by uptime in milliseconds: a guard that is in it after that hangs.
	Deadline int64 `json:"deadline"`
	Status   int   `json:"status"` // of the activation
	// From is the phase that it goes back from.
	From agent.Phase `json:"from,omitempty"`
	// Failed are the units that failed and had not before.
	Failed []string `json:"failed,omitempty"`
	Before before   `json:"before"`
}

// before is what the target was when the switch began: exactly that is returned to.
type before struct {
	agent.JournalState          // an empty Current: there is nothing that could be returned to
	Failed             []string `json:"failed"`
	Network            network  `json:"network"`
}

// uptime is the machine's monotonic clock in milliseconds. Nobody sets it, and all processes see the same one.
func uptime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return t.Nano() / int64(time.Millisecond)
}

const (
	// guardSlack is what a guard may need longer than a phase's limit before it counts as hanging.
	guardSlack = 15 * time.Second
	// mendLimit is how long putting the network back may take.
	mendLimit = time.Minute
)

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func newGuard(r root, dir string, job Job, log *os.File) (*guard, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if job.Switch == nil {
		return nil, errors.New("the job does not say how to switch")
	}
	runner := new(run.Runner)
	return &guard{
		root: r, dir: dir, job: job, log: log, logFile: log, runner: runner, pause: 5 * time.Millisecond,
		timers: &timers{runner: runner, systemd: r.exists(systemdRuns), program: program, dir: dir, job: job},
	}, nil
}

// say writes a line of the guard's own into the log, where followers see it.
func (g *guard) say(format string, args ...any) {
	_, _ = fmt.Fprintf(g.log, "ferry: "+format+"\n", args...)
}

// enter begins a phase that takes at most limit.
func (g *guard) enter(phase agent.Phase, limit time.Duration) error {
	g.state.Phase, g.state.Pid = phase, os.Getpid()
	g.state.Deadline = uptime() + limit.Milliseconds()
	text, err := json.Marshal(g.state)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(g.dir, stateFile), text); err != nil {
		return fmt.Errorf("write down that it is %s: %w", phase, err)
	}
	return nil
}

// run does all of it.
func (g *guard) run(ctx context.Context) jobStatus {
	limits := g.job.Switch.Limits
	g.state.Before = before{JournalState: g.root.state(), Failed: g.job.Failed, Network: lookAtNetwork(ctx, g.runner, g.job.Server)}
	if err := g.prepare(ctx); err != nil {
		g.timers.disarm(ctx)
		return g.end(jobStatus{Status: -1, Outcome: agent.SwitchRefused, Reason: run.Clean(err.Error())})
	}
	if err := g.enter(agent.Activating, seconds(limits.Activation)); err != nil {
		g.timers.disarm(ctx)
		return g.end(jobStatus{Status: -1, Outcome: agent.SwitchRefused, Reason: run.Clean(err.Error())})
	}
	status := g.activate(ctx)
	g.state.Status = status.Status
	if outcome, reason := g.judge(ctx, status); outcome == agent.SwitchRefused {
		g.timers.disarm(ctx)
		return g.end(jobStatus{Status: status.Status, Outcome: outcome, Reason: reason})
	} else if outcome != "" {
		return g.goBack(ctx, reason)
	}
	switch reason := g.awaitConfirmation(ctx); {
	case g.left:
		return jobStatus{}
	case reason != "":
		return g.goBack(ctx, reason)
	}
	return g.keep(ctx)
}

// prepare makes sure that there is a way back before anything changes.
func (g *guard) prepare(ctx context.Context) error {
	if err := g.enter(agent.Arming, stcLockWait+guardSlack); err != nil {
		return err
	}
	if holder := awaitSwitchLock(ctx, g.root, stcLockWait); holder != "" {
		return fmt.Errorf("another switch-to-configuration is at work on the target: %s", holder)
	}
	if g.state.Before.Current == "" && !g.job.Switch.Unsafe {
		return errors.New("there is no /run/current-system that could be returned to")
	}
	if err := keepBack(g.root, g.state.Before.Current); err != nil {
		return fmt.Errorf("arm the way back: %w", err)
	}
	err := g.timers.arm(ctx, "", seconds(g.job.Switch.Limits.Activation)+guardSlack)
	if err != nil && !g.job.Switch.Unsafe {
		return fmt.Errorf("arm the way back: %w", err)
	}
	return nil
}

// activate runs the new system, and ends what hangs.
func (g *guard) activate(ctx context.Context) jobStatus {
	limit := seconds(g.job.Switch.Limits.Activation)
	return switchWithin(ctx, limit, g.root, g.job, "test", g.log)
}

// switchWithin is switchTo with a limit: what goes on after that is ended, with everything it has started.
func switchWithin(ctx context.Context, limit time.Duration, r root, job Job, action string, log io.Writer) jobStatus {
	limited, stop := context.WithTimeout(ctx, limit)
	defer stop()
	status := switchTo(limited, r, job, action, log)
	if limited.Err() != nil && ctx.Err() == nil {
		endStragglers()
		status = jobStatus{Status: -1, Error: fmt.Sprintf("it did not end within %v", limit)}
	}
	return status
}

// judge tells from the end of the activation whether the switch goes on (""), was refused, or has to go back, and why.
func (g *guard) judge(ctx context.Context, status jobStatus) (agent.SwitchOutcome, string) {
	moved := g.root.storePath("/run/current-system") != g.state.Before.Current
	switch status.Status {
	case 0:
		return "", ""
	case 1:
		if !moved {
			return agent.SwitchRefused, "switch-to-configuration refused (exit status 1)"
		}
		return agent.SwitchRolledBack, "switch-to-configuration failed (exit status 1)"
	case 2:
		return agent.SwitchRolledBack, "the activation script failed (exit status 2)"
	case 3:
		return agent.SwitchRolledBack, "systemd could not be reloaded (exit status 3)"
	case 4:
		if reason := g.judgeUnits(ctx, true); reason != "" {
			return agent.SwitchRolledBack, reason
		}
		return "", ""
	case 100:
		if !moved {
			return agent.SwitchRefused, "this change needs a reboot (exit status 100)"
		}
		return agent.SwitchRolledBack, "this change needs a reboot (exit status 100)"
	case -1:
		return agent.SwitchRolledBack, "the activation failed: " + orWord(status.Error, "it left no status")
	}
	return agent.SwitchRolledBack, fmt.Sprintf("switch-to-configuration ended with status %d", status.Status)
}

// judgeUnits tells why the units that failed are not acceptable, "" if they are. said tells that switch-to-configuration
// itself has complained.
func (g *guard) judgeUnits(ctx context.Context, said bool) string {
	policy := g.job.Switch.Units
	if policy == "ignore" {
		return ""
	}
	all := failedUnits(ctx, g.runner, g.root)
	fresh := slices.DeleteFunc(slices.Clone(all), func(unit string) bool { return slices.Contains(g.state.Before.Failed, unit) })
	g.state.Failed = fresh
	switch {
	case len(fresh) > 0:
		return "units failed: " + strings.Join(fresh, ", ")
	case policy == "none" && len(all) > 0:
		return "units are in the failed state: " + strings.Join(all, ", ")
	case said && len(all) == 0:
		// A unit that systemd starts again and again is not in that state when one looks.
		return "units failed (exit status 4)"
	}
	return ""
}

// awaitConfirmation waits until ferry has come back and is content, and gives the reason to go back otherwise.
func (g *guard) awaitConfirmation(ctx context.Context) string {
	limits := g.job.Switch.Limits
	if err := g.enter(agent.Waiting, seconds(limits.Confirm)); err != nil {
		return run.Clean(err.Error())
	}
	// The first timer counts on the activation, which is over.
	rearmed := make(chan error, 1)
	go func() { rearmed <- g.timers.rearm(ctx, seconds(limits.Confirm+limits.Checks)+guardSlack) }()
	defer func() {
		if err := <-rearmed; err != nil {
			g.say("the timer of the way back could not be set anew: %v", err)
		}
	}()
	said, inTime := g.listen(func(v instruction) bool { return v.Verdict != "" || g.tokenIsThere() })
	switch {
	case !inTime:
		return fmt.Sprintf("ferry could not come back over a new connection within %v", seconds(limits.Confirm))
	case said.Verdict == agent.VerdictBack:
		return said.reason()
	case limits.Checks == 0 || said.Verdict == agent.VerdictKeep:
		return g.judgeUnits(ctx, false)
	}
	if err := g.enter(agent.Confirmed, seconds(limits.Checks)); err != nil {
		return run.Clean(err.Error())
	}
	said, inTime = g.listen(func(v instruction) bool { return v.Verdict == agent.VerdictKeep || v.Verdict == agent.VerdictBack })
	switch {
	case !inTime:
		return fmt.Sprintf("ferry did not say within %v how the checks went", seconds(limits.Checks))
	case said.Verdict == agent.VerdictBack:
		return said.reason()
	}
	return g.judgeUnits(ctx, false)
}

// listen waits until enough of what ferry has said is there, or the phase's time is up.
func (g *guard) listen(enough func(instruction) bool) (instruction, bool) {
	for {
		// In this order: what comes at the last moment counts.
		late := uptime() > g.state.Deadline
		v := readVerdict(g.dir)
		if enough(v) {
			return v, true
		}
		if late {
			return v, false
		}
		select {
		case <-g.leave:
			g.left = true
			return v, false
		case <-time.After(g.pause):
		}
		// Most confirmations come soon.
		if g.pause < 25*time.Millisecond {
			g.pause += 100 * time.Microsecond
		}
	}
}

// instruction is what the file verdict says.
type instruction struct {
	Verdict agent.Verdict `json:"verdict"`
	Reason  string        `json:"reason,omitempty"`
}

func (v instruction) reason() string { return orWord(run.Clean(v.Reason), "ferry asked to go back") }

func readVerdict(dir string) (v instruction) {
	if text, err := os.ReadFile(filepath.Join(dir, verdictFile)); err == nil {
		// It is written whole by root.
		_ = json.Unmarshal(text, &v)
	}
	return v
}

// maxToken is how long a token may be, in bytes.
const maxToken = 256

// tokenIsThere tells whether the login user has written the token. The folder is theirs: whatever is in it may be anything.
func (g *guard) tokenIsThere() bool {
	// Root's own, and short: one for each ferry that follows.
	expected, err := os.ReadDir(filepath.Join(g.dir, expectFolder))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(expected, func(e os.DirEntry) bool { return jobName.MatchString(e.Name()) && g.isConfirmedBy(e.Name()) })
}

// isConfirmedBy tells whether the token of this name has been written.
func (g *guard) isConfirmedBy(name string) bool {
	want, err := os.ReadFile(filepath.Join(g.dir, expectFolder, name))
	if err != nil {
		return false
	}
	file, err := os.OpenFile(filepath.Join(g.dir, confirmFolder, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return false
	}
	token, err := io.ReadAll(io.LimitReader(file, maxToken))
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(string(token))))
	return hex.EncodeToString(sum[:]) == string(want)
}

// keep makes the confirmed system what boots, if that was asked for, and takes the way back away.
func (g *guard) keep(ctx context.Context) jobStatus {
	status := jobStatus{Status: g.state.Status, Outcome: agent.SwitchActivated, Failed: g.state.Failed}
	if g.job.Action == "switch" {
		if err := g.enter(agent.Committing, seconds(g.job.Switch.Limits.Activation)); err != nil {
			return g.goBack(ctx, "the commit failed: "+run.Clean(err.Error()))
		}
		committed := g.commit(ctx)
		if committed.Status != 0 || committed.Error != "" {
			return g.goBack(ctx, commitReason(committed))
		}
		status.Outcome, status.Generation = agent.SwitchCommitted, committed.Generation
	}
	if err := g.timers.disarm(ctx); err != nil {
		status.Trouble = "the timer of the way back could not be stopped: " + run.Clean(err.Error())
	}
	return g.end(status)
}

func (g *guard) commit(ctx context.Context) jobStatus {
	limited, stop := context.WithTimeout(ctx, seconds(g.job.Switch.Limits.Activation))
	defer stop()
	job := g.job
	job.Action = "boot"
	// A guard that was killed while it committed may have moved the profile already.
	job.before = &g.state.Before.JournalState
	status := commitJob(limited, g.root, job, g.logFile)
	if limited.Err() != nil && ctx.Err() == nil {
		endStragglers()
	}
	return status
}

func commitReason(status jobStatus) string {
	text := "the commit failed"
	if status.Status > 0 {
		text = fmt.Sprintf("the boot loader could not be written (exit status %d)", status.Status)
	}
	if status.Error != "" {
		text += ": " + status.Error
	}
	return text
}

// end writes down that it is over and gives status.
func (g *guard) end(status jobStatus) jobStatus {
	// Who follows reads the status, which is written next.
	_ = g.enter(agent.Ended, 0)
	_ = os.RemoveAll(filepath.Join(g.dir, confirmFolder))
	if status.Outcome != agent.SwitchStranded {
		_ = os.Remove(g.root.path(backRoot))
	}
	g.record(status)
	return status
}

// record adds the switch to the target's journal. That it cannot be written is no reason to fail.
func (g *guard) record(status jobStatus) {
	outcomes := map[agent.SwitchOutcome]agent.JournalOutcome{
		agent.SwitchCommitted: agent.JournalCommitted, agent.SwitchActivated: agent.JournalActivated, agent.SwitchRefused: agent.JournalUnchanged,
		agent.SwitchRolledBack: agent.JournalRolledBack, agent.SwitchStranded: agent.JournalFailed,
	}
	e := g.root.entry(g.job, g.state.Before.JournalState, outcomes[status.Outcome], joined(status.Reason, status.Trouble))
	e.ID = strings.TrimSuffix(filepath.Base(g.dir), "-"+string(JobSwitch))
	if err := appendJournal(g.root, e); err != nil {
		g.say("%v", err)
	}
}

// recordCommit adds a commit without a switch to the journal: an action boot, or a configuration that makes the same system.
func recordCommit(r root, job Job, before agent.JournalState, status jobStatus, log io.Writer) {
	outcome, reason := agent.JournalFailed, commitReason(status)
	if status.Status == 0 && status.Error == "" {
		outcome, reason = agent.JournalInstalled, ""
		if r.storePath("/run/current-system") == string(job.Toplevel) {
			outcome = agent.JournalCommitted
		}
	}
	e := r.entry(job, before, outcome, reason)
	e.ID = job.Session
	if err := appendJournal(r, e); err != nil {
		_, _ = fmt.Fprintf(log, "ferry: %v\n", err)
	}
}

// entry is the journal's of a job that is over.
func (r root) entry(job Job, before agent.JournalState, outcome agent.JournalOutcome, reason string) agent.JournalEntry {
	m := r.manifest(string(job.Bundle))
	return agent.JournalEntry{
		Who: job.Who, From: job.Server.clientHost(), Action: orWord(job.Record.Action, job.Action), Node: orWord(m.Node, job.Record.Node),
		Bundle: string(job.Bundle), Toplevel: string(job.Toplevel), Revision: m.Revision, Dirty: m.Dirty, Version: r.nixosVersion(string(job.Toplevel)),
		Before: before, After: r.state(), Outcome: outcome, Reason: reason,
	}
}

// timers arms and disarms the way back. Without systemd there is none, and only the guard itself goes back.
type timers struct {
	runner  *run.Runner
	systemd bool
	program string
	dir     string
	job     Job

	mu    sync.Mutex
	armed []string // units
}

// errNoSystemd says that no timer can be armed.
var errNoSystemd = errors.New("PID 1 is not systemd, and nothing else could go back if this process is killed")

// name is the timer's unit, without suffix.
func (t *timers) name(suffix string) string {
	return "ferry-rollback-" + strings.TrimSuffix(filepath.Base(t.dir), "-"+string(JobSwitch)) + suffix
}

// startAgain is a property of the units that succeed a guard: nobody is left to succeed them, when they are killed.
const startAgain = "--property=Restart=on-abnormal"

// arm starts a timer that goes back after that long.
func (t *timers) arm(ctx context.Context, suffix string, after time.Duration) error {
	if !t.systemd {
		return errNoSystemd
	}
	name := t.name(suffix)
	// Only what every systemd since 232 has.
	err := t.runner.Run(ctx, run.Command{Argv: []string{
		"systemd-run", "--quiet", "--no-ask-password", "--unit=" + name,
		"--description=ferry: go back to what ran before " + t.job.Toplevel.Name() + ", unless it is confirmed",
		fmt.Sprintf("--on-active=%ds", int(after.Seconds())), "--timer-property=AccuracySec=1s", "--timer-property=RemainAfterElapse=no",
		"--property=KillMode=process", startAgain,
		"--", t.program, "rollback", t.dir,
	}})
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = append(t.armed, name+".timer")
	return nil
}

// rearm replaces the timer by one that goes back after that long; at no moment is there none.
func (t *timers) rearm(ctx context.Context, after time.Duration) error {
	if !t.systemd {
		return nil
	}
	t.mu.Lock()
	old := slices.Clone(t.armed)
	t.mu.Unlock()
	if err := t.arm(ctx, "-unconfirmed", after); err != nil {
		return err
	}
	return t.stop(ctx, old)
}

// disarm stops all of them.
func (t *timers) disarm(ctx context.Context) error {
	t.mu.Lock()
	all := slices.Clone(t.armed)
	t.mu.Unlock()
	return t.stop(ctx, all)
}

func (t *timers) stop(ctx context.Context, units []string) error {
	if len(units) == 0 {
		return nil
	}
	err := t.runner.Run(ctx, run.Command{Argv: append([]string{"systemctl", "stop", "--"}, units...)})
	var failed *run.Error
	// 5: one of them was not there any more; the others are stopped all the same.
	if err != nil && !(errors.As(err, &failed) && failed.Status == 5) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = slices.DeleteFunc(t.armed, func(unit string) bool { return slices.Contains(units, unit) })
	return nil
}

func orWord(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
