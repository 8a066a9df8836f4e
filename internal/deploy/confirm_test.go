package deploy

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// confirms confirms at a fake target that goes through plan.
func confirms(ctx context.Context, t *testing.T, interactive bool, within time.Duration, plan ...string) (n *fakeNode, notes []string, err error) {
	t.Helper()
	n = newFakeNode(t, action.Switch, plan...)
	err = confirmLogin(ctx, n.Dialer, n.Link.Address(), interactive, confirmLine(n.Dir), confirmInput("token", "secret"),
		time.Now().Add(within), func(text string) { notes = append(notes, text) })
	return n, notes, err
}

func TestConfirmingGoesOnUntilTheTargetIsReached(t *testing.T) {
	n, notes, err := confirms(t.Context(), t, false, time.Minute, "refused", "unknown", "denied", "runs")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(n.Dir, "token")); string(got) != "secret\n" || err != nil {
		t.Errorf("the token is %q, %v", got, err)
	}
	if want := []string{"not reachable yet: ssh alice@pi: connect to host pi port 22: Connection refused"}; !slices.Equal(notes, want) {
		t.Errorf("noted %q", notes)
	}
	if got := n.Connections(t); got != 4 {
		t.Errorf("%d connections", got)
	}
}

func TestConfirmingEndsAtTheDeadlineWithTheLastReason(t *testing.T) {
	for name, c := range map[string]struct {
		plan []string
		kind target.Kind
	}{
		"the host is down":                     {[]string{"refused"}, target.Refused},
		"the login is refused at last":         {[]string{"refused", "denied"}, target.Denied},
		"a connection is stuck":                {[]string{"hangs"}, target.TimedOut},
		"a connection is stuck when it ends":   {[]string{"refused", "hangs"}, target.Refused},
		"the token cannot be written any more": {[]string{"refused", "fails"}, "ssh: exit status 1: sh: disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			n, notes, err := confirms(t.Context(), t, false, 1500*time.Millisecond, c.plan...)
			var connect *target.Error
			if errors.As(err, &connect) && connect.Kind != c.kind || connect == nil && (err == nil || err.Error() != string(c.kind)) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begin); took < 1500*time.Millisecond {
				t.Errorf("it gave up after %v", took)
			}
			if c.plan[0] == "refused" && len(notes) != 1 || c.plan[0] != "refused" && len(notes) != 0 {
				t.Errorf("noted %q", notes)
			}
			if _, err := os.Stat(filepath.Join(n.Dir, "token")); !os.IsNotExist(err) {
				t.Error("the token is there")
			}
		})
	}
}

// Another ferry may have confirmed it, or it has gone back.
func TestConfirmingEndsWhereTheTargetDoesNotWaitAnyMore(t *testing.T) {
	for name, c := range map[string]struct {
		plan []string
		want string
	}{
		"at once":               {[]string{"runs"}, errOver.Error()},
		"when it could be seen": {[]string{"refused", "runs"}, "ssh alice@pi: connect to host pi port 22: Connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t, action.Switch, c.plan...)
			err := confirmLogin(agenttest.Soon(t), n.Dialer, n.Link.Address(), false, confirmLine(filepath.Join(n.Dir, "gone")), confirmInput("token", "secret"),
				time.Now().Add(time.Hour), func(string) {})
			if err == nil || err.Error() != c.want || n.Connections(t) != len(c.plan) {
				t.Errorf("got %v after %d connections", err, n.Connections(t))
			}
		})
	}
}

func TestConfirmingEndsAtOnceWhenNobodyWaitsAnyMore(t *testing.T) {
	ctx, cancel := context.WithCancel(agenttest.Soon(t))
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, _, err := confirms(ctx, t, false, time.Hour, "hangs"); !errors.Is(err, context.Canceled) {
		t.Errorf("in the first try: %v", err)
	}
	ctx, cancel = context.WithCancel(agenttest.Soon(t))
	n := newFakeNode(t, action.Switch, "refused", "hangs")
	var e *target.Error
	err := confirmLogin(ctx, n.Dialer, n.Link.Address(), false, "true", nil, time.Now().Add(time.Hour), func(string) {
		time.AfterFunc(200*time.Millisecond, cancel)
	})
	if !errors.As(err, &e) || e.Kind != target.Refused {
		t.Errorf("later: %v", err)
	}
}

func TestConfirmingAnInteractiveLoginProvesThatTheTargetAnswers(t *testing.T) {
	n, notes, err := confirms(t.Context(), t, true, time.Minute, "refused", "denied")
	if !errors.Is(err, errAnswers) {
		t.Errorf("got %v", err)
	}
	if len(notes) != 1 || n.Connections(t) != 2 {
		t.Errorf("noted %q on %d connections", notes, n.Connections(t))
	}
	if _, _, err := confirms(t.Context(), t, true, 300*time.Millisecond, "refused"); err == nil || errors.Is(err, errAnswers) {
		t.Errorf("a target that does not answer: %v", err)
	}
}

func TestConfirmingWithoutSSHHereIsNotTriedAgain(t *testing.T) {
	n := newFakeNode(t, action.Switch, "runs")
	t.Setenv("PATH", t.TempDir())
	var missing *target.MissingError
	err := confirmLogin(agenttest.Soon(t), n.Dialer, n.Link.Address(), false, "true", nil, time.Now().Add(time.Hour), n.Note)
	if !errors.As(err, &missing) {
		t.Errorf("got %v", err)
	}
}

func TestConfirmingThisMachineNeedsNoSSH(t *testing.T) {
	addr, err := target.ParseAddress("local")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	d := &target.Dialer{Runner: new(run.Runner)}
	if err := confirmLogin(t.Context(), d, addr, false, confirmLine(folder), confirmInput("token", "secret"), time.Now().Add(time.Minute), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(folder, "token")); string(got) != "secret\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// The login shell of a target is its user's choice.
func TestConfirmLineWritesTheTokenUnderEveryLoginShell(t *testing.T) {
	for _, shell := range []string{"sh", "dash", "bash", "busybox sh", "zsh", "fish"} {
		// A name with a space cannot come; a shell that cut it would show.
		folder := filepath.Join(t.TempDir(), "a folder")
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(folder, "token")
		argv := append(strings.Fields(shell), "-c", confirmLine(folder))
		for _, token := range []string{"FIRST", "SECOND"} {
			cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
			cmd.Stdin = bytes.NewReader(confirmInput("token", token))
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != confirmReady+"\n" {
				t.Errorf("%s: %v, %s", shell, err, out)
			}
			if got, err := os.ReadFile(file); string(got) != token+"\n" || err != nil {
				t.Errorf("%s: %q, %v", shell, got, err)
			}
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", shell, info, err)
		}
	}
}

func TestATokenThatIsNotWrittenWholeIsAFailure(t *testing.T) {
	for name, c := range map[string]struct{ folder, input string }{
		"no folder":             {filepath.Join(t.TempDir(), "none"), "token secret\n"},
		"a full disk":           {"/dev", "full secret\n"},
		"a cut connection":      {t.TempDir(), "token sec"},
		"a folder of the name":  {filepath.Dir(t.TempDir()), "001 secret\n"},
		"nothing has come":      {t.TempDir(), ""},
		"a folder that is file": {"/etc/passwd", "token secret\n"},
	} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", confirmLine(c.folder))
		cmd.Stdin = strings.NewReader(c.input)
		if err := cmd.Run(); err == nil {
			t.Errorf("%s: it went well", name)
		}
	}
}

// TestATokenIsNeverWrittenThroughALink has links in its place, to a file that is there and to one that is not.
func TestATokenIsNeverWrittenThroughALink(t *testing.T) {
	for _, shell := range []string{"sh", "dash", "bash", "busybox sh", "zsh"} {
		folder, elsewhere := t.TempDir(), t.TempDir()
		there, missing := filepath.Join(elsewhere, "there"), filepath.Join(elsewhere, "missing")
		if err := os.WriteFile(there, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, to := range map[string]string{"one": there, "two": missing} {
			if err := os.Symlink(to, filepath.Join(folder, name)); err != nil {
				t.Fatal(err)
			}
			argv := append(strings.Fields(shell), "-c", confirmLine(folder))
			cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
			cmd.Stdin = bytes.NewReader(confirmInput(name, "secret"))
			if err := cmd.Run(); err == nil {
				t.Errorf("%s: a link to %s: it went well", shell, to)
			}
		}
		if got, err := os.ReadFile(there); string(got) != "precious" || err != nil {
			t.Errorf("%s: %q, %v", shell, got, err)
		}
		if _, err := os.Lstat(missing); err == nil {
			t.Errorf("%s: the file was made", shell)
		}
	}
}

// TestNobodyReadsATokensNameOrTheTokenInTheListOfProcesses looks at the command line, which everybody can see.
func TestNobodyReadsATokensNameOrTheTokenInTheListOfProcesses(t *testing.T) {
	line, input := confirmLine(agent.ConfirmFolder("job")), string(confirmInput("the-name", "the-token"))
	if strings.Contains(line, "the-") || input != "the-name the-token\n" {
		t.Errorf("%q, %q", line, input)
	}
}

// TestALoginIsTriedBeforeAnythingChanges locks what counts as one that could confirm: a refusal ends it at once, a line that is down
// is waited for, and what a login shell reads for a moment does not matter.
func TestALoginIsTriedBeforeAnythingChanges(t *testing.T) {
	for name, c := range map[string]struct {
		plan        []string
		says        string
		connections int
	}{
		"it works":                   {[]string{"runs"}, "", 1},
		"it is refused":              {[]string{"denied", "runs"}, "no new login is possible, so nothing could confirm the new system: ssh alice@pi: alice@pi: Permission denied (publickey)", 1},
		"the line is down for a bit": {[]string{"refused", "unknown", "runs"}, "", 3},
		"the shell fails":            {[]string{"fails"}, "no new login is possible, so nothing could confirm the new system: ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t, action.Switch, c.plan...)
			err := tryLogin(agenttest.Soon(t), n.Dialer, n.Link.Address(), time.Minute)
			if err != nil {
				err = noLogin(err)
			}
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.HasPrefix(err.Error(), c.says)) {
				t.Errorf("got %v", err)
			}
			if err != nil && len(session.HintsOf(err)) == 0 {
				t.Error("no hint")
			}
			if got := n.Connections(t); got != c.connections {
				t.Errorf("%d connections", got)
			}
		})
	}
}
