package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestCtrlCInEachStep presses it on a terminal: ferry ends with the right status and leaves nothing, and the next
// deployment works.
func TestCtrlCInEachStep(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	r.Rewrite()
	r.Deploy()
	nothing := func(*site.Rehearsal) {}
	asking := site.Stage{Name: "password", Begin: nothing, Reached: func(*site.Rehearsal) bool { return true }, Release: nothing}
	for _, stage := range append(site.Stages(), asking) {
		t.Run(stage.Name, func(t *testing.T) {
			r := r.In(t)
			interrupted(r, stage, func() site.Outcome {
				p := r.Person("deploy")
				switch stage.Name {
				case "login":
				case "password":
					p.Sees("web: password for sudo: ")
				default:
					p.Sees("web: password for sudo: ")
					p.Types(lab.Password + "\n")
					p.Sees("web: connect ")
				}
				r.Await(stage)
				if stage.Changes {
					// The key throws away what the terminal has not shown yet.
					p.Sees("web | " + stage.Name + ": one")
				}
				p.Types("\x03")
				if stage.Changes {
					p.Sees(goesOn)
					stage.Release(r)
				}
				o := p.Ends()
				if at := strings.LastIndex(o.Errors, "\n") + 1; strings.TrimRight(o.Errors[at:], "\r\x1b[K") != "" {
					t.Errorf("the last line has no end: %q", o.Errors[at:])
				}
				return o
			})
		})
	}
}

// TestSIGTERMInEachStep does the same as a service manager would, without a terminal.
func TestSIGTERMInEachStep(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	r.Rewrite()
	r.Deploy()
	for _, stage := range site.Stages() {
		t.Run(stage.Name, func(t *testing.T) {
			r := r.In(t)
			interrupted(r, stage, func() site.Outcome {
				cmd, ended := r.Background("deploy", "--sudo-password-file", r.Password)
				r.Await(stage)
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if stage.Changes {
					stage.Release(r)
				}
				return ended()
			})
		})
	}
}

// goesOn is said on the first signal while the target is being changed.
const goesOn = "web: note: the switch continues on web and rolls back unless confirmed: wait, or press Ctrl-C again and later run: ferry attach web"

// interrupted checks an interruption in a stage, and what it leaves: a target that is being changed is not left by the first.
func interrupted(r *site.Rehearsal, s site.Stage, interrupt func() site.Outcome) {
	r.T.Helper()
	before, greeting := r.State(), r.Rewrite()
	s.Begin(r)
	o := interrupt()
	if s.Changes {
		o.Says(r.T, goesOn, "web | "+s.Name+": one", "web | "+s.Name+": two", "web: done: ")
		if o.Status != 0 {
			r.T.Errorf("status %d, want 0", o.Status)
		}
		if got := r.State(); got.Greeting != greeting || got.Boots != got.Runs {
			r.T.Errorf("the target is left as %+v", got)
		}
	} else {
		o.Says(r.T, "ferry: interrupted; no node was changed")
		if o.Status != 130 || strings.Contains(o.Errors, "error") {
			r.T.Errorf("status %d, want 130, and no error", o.Status)
		}
	}
	if !s.Changes {
		s.Release(r)
	}
	r.NothingRuns()
	if !s.Changes {
		r.Want(r.State(), before)
	}
	greeting = r.Rewrite()
	r.Deploy()
	if got := r.OnTarget("cat", "/etc/greeting"); got != greeting {
		r.T.Errorf("afterwards the target greets with %q, want %q", got, greeting)
	}
}

// TestTheSecondSignalLeavesATargetThatGoesBack sends it by Ctrl-C and as a service manager would: ferry ends in good order,
// and the target, which nobody confirms, goes back by itself.
func TestTheSecondSignalLeavesATargetThatGoesBack(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	r.Rewrite()
	r.Deploy()
	stage := site.OnTarget("activate")
	for name, leave := range map[string]func(*site.Rehearsal) site.Outcome{
		"Ctrl-C": func(r *site.Rehearsal) site.Outcome {
			p := r.Person("deploy", "--confirm-timeout", "1s")
			p.Sees("web: password for sudo: ")
			p.Types(lab.Password + "\n")
			r.Await(stage)
			p.Types("\x03")
			p.Sees(goesOn)
			p.Types("\x03")
			o := p.Ends()
			if at := strings.LastIndex(o.Errors, "\n") + 1; strings.TrimRight(o.Errors[at:], "\r\x1b[K") != "" {
				t.Errorf("the last line has no end: %q", o.Errors[at:])
			}
			return o
		},
		"SIGTERM": func(r *site.Rehearsal) site.Outcome {
			cmd, ended := r.Background("deploy", "--confirm-timeout", "1s", "--sudo-password-file", r.Password)
			r.Await(stage)
			for range 2 {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					r.T.Fatal(err)
				}
				// The first is taken by now; two at once would be one.
				time.Sleep(500 * time.Millisecond)
			}
			return ended()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := r.In(t)
			before := r.State()
			r.Rewrite()
			stage.Begin(r)
			o := leave(r)
			o.Says(t, "ferry: error: web: activate: interrupted\n",
				"ferry: hint: it rolls back by itself unless it is confirmed in time: ferry attach web", "ferry: hint: its log on the target: /run/ferry/")
			if o.Status != 5 {
				t.Errorf("status %d, want 5", o.Status)
			}
			stage.Release(r)
			r.NothingRunsThere()
			r.NothingRuns()
			after := r.State()
			// It was stopped for the new system and started again for the old one.
			after.Greeter = before.Greeter
			r.Want(after, before)
		})
	}
}

// TestKilledInEachStep kills ferry with SIGKILL, which it cannot notice: the next deployment works.
func TestKilledInEachStep(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	r.Rewrite()
	r.Deploy()
	for _, stage := range site.Stages() {
		t.Run(stage.Name, func(t *testing.T) {
			r := r.In(t)
			before, killed := r.State(), r.Rewrite()
			stage.Begin(r)
			cmd, ended := r.Background("deploy", "--sudo-password-file", r.Password, "--confirm-timeout", "3s")
			r.Await(stage)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			ended()
			stage.Release(r)
			// The target is still at work, and would be said to be.
			r.NothingRunsThere()
			want := before.Greeting
			if stage.Name == "commit" {
				// It was confirmed.
				want = killed
			}
			if got := r.State(); got.Greeting != want || got.Boots != got.Runs {
				t.Errorf("the target is left as %+v, want the greeting %q", got, want)
			}
			greeting := r.Rewrite()
			r.Deploy()
			if got := r.OnTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("afterwards the target greets with %q, want %q", got, greeting)
			}
		})
	}
}

// TestASecondSignalEndsFerryAtOnce sends it while ferry waits for a program that does not end.
func TestASecondSignalEndsFerryAtOnce(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true, Alone: true})
	asked := filepath.Join(s.Builder.Home(), "asked")
	cmd, ended := s.Background("deploy", "--sudo-password-command", "trap '' TERM INT; touch "+asked+"; while [ -e "+asked+" ]; do sleep 0.1; done")
	site.Until(t, "the password is asked for", func() bool {
		_, err := os.Stat(s.Builder.Path(asked))
		return err == nil
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The first is taken by now, and waits for the command.
	time.Sleep(500 * time.Millisecond)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended()
	s.Must("rm", asked)
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("ferry ended with %v, not by the second signal", cmd.ProcessState)
	}
}
