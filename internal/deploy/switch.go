package deploy

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/health"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// switching is ferry's side of a guarded switch. The target itself rolls back unless ferry comes back over a new connection;
// whatever becomes of ferry, it ends in a known state.
type switching struct {
	*deployment
	job      string
	toplevel nix.StorePath
	before   agent.Facts
	token    string
	expect   agent.Token
	limits   agent.Limits
	checks   health.Checks
	// watching says that the end is awaited, and that nothing is said about how it shall end.
	watching bool
	log      *run.LineWriter
	step     session.Step
	begin    time.Time
	// checked says that the target has been asked all there is to ask: it may wait for a moment yet.
	checked bool
	// confirming is the last reason why ferry could not come back, failure why a check failed.
	confirming, failure error
}

// guarded runs the new system on the target, comes back over a new connection, and lets it be committed.
func (d *deployment) guarded(ctx context.Context, ready session.Built, before agent.Facts, result *Result) error {
	nodeChecks, err := d.Inventory.ChecksOf(ctx, d.Node)
	if err != nil {
		return d.Fail(session.Activate, session.Unchanged, err)
	}
	s := d.newSwitching(d.Job, ready.Toplevel, before)
	s.checks = nodeChecks
	s.limits = agent.Limits{Activation: wholeSeconds(d.opts.Limits.Activation), Confirm: wholeSeconds(d.opts.Limits.Confirm)}
	if !s.checks.Empty() {
		s.limits.Checks = wholeSeconds(s.checks.Timeout() + checksSlack)
	}
	awaits, err := nameOf(s.checks)
	if err != nil {
		return d.Fail(session.Activate, session.Unchanged, err)
	}
	request := agent.Request{
		Job: d.Job, Toplevel: ready.Toplevel, Bundle: ready.Bundle, Action: string(d.opts.Action), ForceNotNixOS: d.opts.ForceNotNixOS,
		Switch: &agent.GuardOptions{Limits: s.limits, Units: agent.Units(s.checks.Units), Awaits: awaits, Unsafe: d.opts.Unsafe},
		Record: d.record(),
	}
	d.Link.BearWith(d.opts.Limits.Confirm + time.Duration(s.limits.Checks)*time.Second)
	if err := ctx.Err(); err != nil {
		return d.Fail(session.Activate, session.Unchanged, err)
	}
	shielded, release := shield(ctx, d.opts.Leave, func() { s.Note(s.afterLeaving()) })
	defer release()
	var got agent.SwitchResult
	s.enter(session.Activate)
	err = d.Link.Follow(shielded, func(conn *agent.Session) error {
		request.Offset, request.Token = s.log.Total, &s.expect
		var err error
		got, err = conn.Switch(shielded, request, s.log, s.phase)
		return err
	})
	if err == nil && got.Outcome == "" {
		got, err = s.finish(shielded, d.Link.Follow, got)
	}
	s.log.Flush()
	if err != nil {
		return s.broken(err, result)
	}
	if got.Outcome == agent.SwitchRefused && got.Status == needsReboot && d.opts.Action == action.Switch {
		s.leave("not possible on a running machine")
		result.NeedsReboot = got.Reason
		d.Note("this change needs a reboot: it is installed, and runs from the next boot on")
		return session.Settled(d.install(shielded, ready, before, result))
	}
	return s.conclude(got, result)
}

func (d *deployment) record() agent.Record {
	return agent.Record{Node: d.Node.Name, Action: cmp.Or(d.what, string(d.opts.Action))}
}

// fail makes the error of a switch, which goes on after the user's first signal.
func (s *switching) fail(step session.Step, state session.State, err error) *session.Error {
	e := s.deployment.Fail(step, state, err)
	e.Settled = true
	return e
}

func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

func (d *deployment) newSwitching(job string, toplevel nix.StorePath, before agent.Facts) *switching {
	s := &switching{deployment: d, job: job, toplevel: toplevel, before: before, token: rand.Text()}
	sum := sha256.Sum256([]byte(s.token))
	s.expect = agent.Token{Name: strings.ToLower(rand.Text()), Hash: hex.EncodeToString(sum[:])}
	s.log = &run.LineWriter{Emit: func(line string) { d.Emit(session.Event{Kind: session.Line, Step: s.step, Text: line}) }}
	return s
}

// enter begins a step, if it is not "", and ends the one before.
func (s *switching) enter(step session.Step) {
	if s.step == step {
		return
	}
	s.leave("")
	if step == "" {
		return
	}
	s.step, s.begin = step, time.Now()
	s.Emit(session.Event{Kind: session.Started, Step: step})
}

func (s *switching) leave(text string) {
	if s.step != "" {
		s.Emit(session.Event{Kind: session.Finished, Step: s.step, Text: text, Duration: time.Since(s.begin)})
	}
	s.step = ""
}

// phase follows what the target says that it is doing.
func (s *switching) phase(p agent.Phase) {
	switch p {
	case agent.Waiting:
		if !s.checked {
			s.enter(session.Confirm)
		}
	case agent.Committing:
		s.enter(session.Commit)
	}
}

// again runs a request to its end, over a new connection if the old one is lost.
type again func(context.Context, func(*agent.Session) error) error

// finish comes back to a target that waits, and follows it to its end.
func (s *switching) finish(ctx context.Context, again again, waits agent.SwitchResult) (agent.SwitchResult, error) {
	request := agent.Request{Job: s.job, Token: &s.expect}
	left := time.Duration(waits.Left) * time.Second
	switch {
	case s.watching:
	case !s.checks.Empty():
		request.Verdict, request.Reason = s.check(ctx, waits.Phase, left)
	case s.Link.Address().Local():
		request.Verdict = agent.VerdictConfirm
	case s.Link.Interactive():
		if s.confirming = s.confirm(ctx, left); errors.Is(s.confirming, errAnswers) {
			request.Verdict = agent.VerdictConfirm
		}
	default:
		// The target itself ends it when ferry cannot come back: nobody has to be told.
		confirmed, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- s.confirm(confirmed, left) }()
		defer func() {
			stop()
			s.confirming = <-ended
		}()
	}
	var got agent.SwitchResult
	err := again(ctx, func(conn *agent.Session) error {
		request.Offset = s.log.Total
		var err error
		got, err = conn.Finish(ctx, request, s.log, s.phase)
		return err
	})
	return got, err
}

// checksSlack is how much longer the target waits than the checks may take.
const checksSlack = 15 * time.Second

// check comes back to a target that waits, makes its checks, and says what the target is to do; "" when it could not come back:
// the target then does by itself what there is to do.
func (s *switching) check(ctx context.Context, phase agent.Phase, left time.Duration) (agent.Verdict, string) {
	if phase == agent.Waiting && !s.Link.Address().Local() {
		if s.confirming = s.confirm(ctx, left); s.confirming != nil && !errors.Is(s.confirming, errAnswers) {
			return "", ""
		}
	}
	s.enter("")
	s.checked = true
	if err := runChecks(ctx, s.checks, s.Link, s.Emit); err != nil {
		s.step, s.failure = session.Check, err
		return agent.VerdictBack, err.Error()
	}
	return agent.VerdictKeep, ""
}

// afterLeaving says what to do about a target that was left while it changes.
func (s *switching) afterLeaving() string {
	return fmt.Sprintf("the switch continues on %[1]s and rolls back unless confirmed: wait, or press Ctrl-C again and later run: ferry attach %[1]s", s.Node.Name)
}

// broken is the error of a switch whose end is not known here.
func (s *switching) broken(err error, result *Result) error {
	step := s.step
	if step == "" {
		step = session.Activate
	}
	var forgotten *session.ForgottenError
	var response *agent.ResponseError
	e := s.fail(step, session.Unknown, err)
	switch {
	case errors.As(err, &forgotten):
		return s.restarted(step, forgotten.Facts, result)
	case errors.As(err, &response) && response.Kind == agent.KindNone && s.job != "":
		return s.restarted(step, s.Link.Facts(), result)
	case errors.As(err, &response):
		// The agent refused, or could not begin.
		if step == session.Activate {
			e.State = session.Unchanged
		}
		if response.Kind == agent.KindUnsafe {
			e.Advice = []string{session.UnsafeHint}
		}
	case agent.IsLost(err), errors.Is(err, context.Canceled):
		if errors.Is(err, context.Canceled) {
			e.Err = &session.Advised{Text: "interrupted", Err: err}
		}
		e.Advice = []string{"it rolls back by itself unless it is confirmed in time: ferry attach " + s.Node.Name + " follows it again"}
		if s.job != "" {
			e.Advice = append(e.Advice, fmt.Sprintf("its log on the target: /run/ferry/%s-switch/log, for root", s.job))
		}
	}
	return e
}

// restarted tells what a target that was restarted in the middle is now.
func (s *switching) restarted(step session.Step, now agent.Facts, result *Result) error {
	const why = "the target was restarted in the middle"
	switch {
	case now.Current == string(s.toplevel) && now.Committed == now.Current && now.Profile == now.Current:
		s.Note(why + ", after the commit")
		result.Outcome = Committed
		return nil
	case now.Current == s.before.Current && now.Profile == s.before.Profile:
		return s.fail(step, session.RolledBack, session.Hint(why+"; it runs and boots what it did before", "run the same command again: what has arrived is kept"))
	}
	return s.fail(step, session.Unknown, session.Hint(why+", or deployed to by someone else; it runs "+session.SystemName(now.Current), "ferry generations "+s.Node.Name+" shows what is there"))
}

// conclude makes of the end of a switch what the deployment gives.
func (s *switching) conclude(got agent.SwitchResult, result *Result) error {
	result.Failed, result.Generation = got.Failed, got.Generation
	if s.what == agent.ActionRollback && got.Bundle == "" {
		// It was collected there.
		result.Bundle = ""
	}
	if got.Trouble != "" {
		s.Note(got.Trouble)
	}
	if len(got.UserUnits) > 0 {
		s.Note(session.UsersUnits(got.UserUnits))
	}
	step := s.step
	switch got.Outcome {
	case agent.SwitchCommitted:
		// It may have been over when ferry came.
		s.enter(session.Commit)
		s.leave(fmt.Sprintf("generation %d is what boots", got.Generation))
		result.Outcome = Committed
		return nil
	case agent.SwitchActivated:
		s.leave("")
		result.Outcome = Activated
		return nil
	}
	if step == "" {
		step = session.Activate
	}
	if got.From == agent.Committing {
		step = session.Commit
	}
	see := wholeLog(got.Log)
	text := got.Reason
	if step == session.Confirm && s.confirming != nil && !errors.Is(s.confirming, context.Canceled) && !errors.Is(s.confirming, errOver) {
		text += ": " + s.confirming.Error()
	}
	switch got.Outcome {
	case agent.SwitchRefused:
		hints := []string{see}
		switch {
		case s.before.Current == "" && !s.opts.Unsafe:
			hints = []string{session.UnsafeHint}
		case got.Status == needsReboot:
			hints = []string{"deploy it with --action boot, then reboot the target; or use --reboot"}
		}
		return s.fail(step, session.Unchanged, session.Hint(text+"; nothing has changed", hints...))
	case agent.SwitchRolledBack:
		// What a check has to show is shown, and its advice comes first.
		back := &session.Advised{Text: text + "; the target rolled back to " + session.SystemName(got.Current), Advice: append(session.HintsOf(s.failure), see), Err: s.failure}
		return s.fail(step, session.RolledBack, back)
	}
	if got.Outcome == agent.SwitchOvertaken {
		return s.fail(step, session.Unknown, session.Hint(text, "ferry generations "+s.Node.Name+" shows what is there", see))
	}
	text += "; the target could not roll back, it runs " + session.SystemName(got.Current)
	if got.Phase == agent.Stranded {
		return s.fail(step, session.Unknown, session.Hint(fmt.Sprintf("%s, and tries again in %d s, and after that", text, got.Left),
			"ferry attach "+s.Node.Name+" shows how it goes; another deployment or a rollback takes its place", see))
	}
	return s.fail(step, session.Unknown, session.Hint(text, rollBackByHand(s.before), see))
}

// needsReboot is the status of a switch-to-configuration that cannot switch a running machine.
const needsReboot = 100
