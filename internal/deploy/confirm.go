package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// errAnswers says that a target answers new connections, and that only a person could log in over them.
var errAnswers = errors.New("the target answers, but a login needs a person")

// errOver says that a target does not wait any more: it has rolled back, or another ferry has confirmed it.
var errOver = errors.New("the target does not wait any more")

// While ferry comes back: the pauses between two tries, which double, and how long the first try may take. That doubles too,
// since a connection may be stuck where a new one is not, and a machine may be slow.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	firstTry   = 10 * time.Second
)

// confirmLogin logs in over a new connection and runs line with input, again and again until that works or the
// deadline has passed. The error is then the last reason; the first is noted. A target that does not wait any more is not
// tried again. Where the login is interactive it proves what can be proved without a person, and gives errAnswers: the agent
// is to be told over the connection that there is.
func confirmLogin(ctx context.Context, dialer *target.Dialer, addr target.Address, interactive bool, line string, input []byte, deadline time.Time, note func(string)) error {
	ctx, stop := context.WithDeadline(ctx, deadline)
	defer stop()
	try := func(patience time.Duration) error {
		ctx, stop := context.WithTimeout(ctx, patience)
		defer stop()
		if !interactive {
			return dialer.Confirm(ctx, addr, line, confirmReady, input)
		}
		if err := dialer.Answers(ctx, addr); err != nil {
			return err
		}
		return errAnswers
	}
	var reason error
	for pause, patience := firstPause, firstTry; ; pause, patience = min(2*pause, lastPause), 2*patience {
		err := try(patience)
		var missing *target.MissingError
		var ended *run.Error
		if errors.As(err, &ended) && ended.Status == overStatus {
			return cmp.Or(reason, errOver)
		}
		if err == nil || errors.Is(err, errAnswers) || errors.As(err, &missing) {
			return err
		}
		if ctx.Err() == nil {
			if reason == nil {
				note("not reachable yet: " + err.Error())
			}
			reason = err
		}
		// A try that was broken off says less than the one before.
		select {
		case <-ctx.Done():
			if reason == nil {
				reason = err
			}
			return reason
		case <-time.After(pause):
		}
	}
}

// overStatus is how confirmLine's command ends where the folder is gone.
const overStatus = 66

// confirmReady is what confirmLine's command says when it reads its input.
const confirmReady = "ferry waits for its word"

// confirmLine is the command line by which the login user writes a token into folder: its input is the name of the file and the
// token (see confirmInput), which nobody else gets to see. The file is made anew, and never through a link; only one that a try
// before this one has left there is written again. It needs nothing but sh, and looks the same to every login shell.
func confirmLine(folder string) string {
	script := fmt.Sprintf(`umask 077; [ -d "$1" ] || exit %d; cd "$1" || exit 1; echo %s; read -r f t || exit 1; `+
		`set -C; if [ -f "$f" ]; then [ -h "$f" ] || set +C; fi; echo "$t" >"$f"`, overStatus, confirmReady)
	return run.QuoteAll([]string{"sh", "-c", script, "ferry", folder})
}

// confirmInput is what confirmLine's command reads.
func confirmInput(name, token string) []byte { return []byte(name + " " + token + "\n") }

// confirm comes back over a new connection for as long as the target waits for it.
func (s *switching) confirm(ctx context.Context, left time.Duration) error {
	line := confirmLine(agent.ConfirmFolder(s.job))
	// The target's clock is what counts; this one may be a little late.
	deadline := time.Now().Add(left + time.Second)
	return confirmLogin(ctx, s.Dialer, s.Link.Address(), s.Link.Interactive(), line, confirmInput(s.expect.Name, s.token), deadline, s.Note)
}

// mayConfirm finds out before anything is changed whether the target could be confirmed at all, by the same kind of login that
// will confirm it: the connection that is there may be an old one, and the key or the certificate that made it gone since. Where
// the login needs a person, on the way there may be another host that needs one.
func (d *deployment) mayConfirm(ctx context.Context) error {
	switch {
	case d.Link.Address().Local():
		return nil
	case d.Link.Interactive():
		if err := d.Dialer.Answers(ctx, d.Link.Address()); err != nil {
			return &session.Advised{Err: err, Text: "no new connection comes through without a person, so nothing could confirm the new system: " + err.Error(),
				Advice: []string{"load the key for every host on the way into ssh-agent; or use --action boot and restart the target"}}
		}
		d.Note(provesLess)
		return nil
	}
	if err := tryLogin(ctx, d.Dialer, d.Link.Address(), min(d.opts.Limits.Confirm, trialTime)); err != nil {
		return noLogin(err)
	}
	return nil
}

// trialTime is how long a login that confirms nothing yet is tried again, where that may help.
const trialTime = 20 * time.Second

// eatenStatus is how the command of a login that confirms nothing ends when it has not read what was sent.
const eatenStatus = 67

// tryLogin logs in over a new connection, and lets it carry a word there.
func tryLogin(ctx context.Context, dialer *target.Dialer, addr target.Address, within time.Duration) error {
	const word = "ferry"
	line := run.QuoteAll([]string{"sh", "-c", fmt.Sprintf(`echo %s; read -r t; [ "$t" = %s ] || exit %d`, confirmReady, word, eatenStatus)})
	deadline := time.Now().Add(within)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		trying, stop := context.WithTimeout(ctx, max(firstTry, time.Until(deadline)))
		err := dialer.Confirm(trying, addr, line, confirmReady, []byte(word+"\n"))
		stop()
		var connect *target.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &connect) || !connect.Unreachable() || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// noLogin says what to do about a login that works no more.
func noLogin(err error) error {
	e := &session.Advised{Err: err, Text: "no new login is possible, so nothing could confirm the new system: " + err.Error()}
	var connect *target.Error
	if errors.As(err, &connect) && connect.Kind == target.Denied {
		e.Advice = []string{
			"the login that began this deployment worked: a key that left ssh-agent since (ssh-add -l), or a certificate that ran out (ssh-keygen -L -f ~/.ssh/id_ed25519-cert.pub)",
			"nothing has changed, and what has arrived is kept: load the key or renew the certificate, then run the same command again",
		}
		return e
	}
	e.Advice = append(session.HintsOf(err), "nothing has changed, and what has arrived is kept")
	return e
}

// inAdvance runs f beside what else there is to do, and gives what waits for its end.
func inAdvance(ctx context.Context, f func(context.Context) error) (end func() error) {
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return sync.OnceValue(func() error { return <-done })
}

// provesLess is what a user should know whose login needs a person.
const provesLess = "the login needs a person: the new system will be confirmed when its sshd answers, which proves less than a login with a key"
