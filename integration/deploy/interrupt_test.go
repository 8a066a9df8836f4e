package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/lab"
)

// TestCtrlCInEachStep presses it on a terminal: ferry ends with the right status and leaves nothing, and the next
// deployment works.
func TestCtrlCInEachStep(t *testing.T) {
	t.Parallel()
	r := newRehearsal(t)
	r.rewrite()
	r.deploy()
	nothing := func(*rehearsal) {}
	asking := stage{name: "password", begin: nothing, reached: func(*rehearsal) bool { return true }, release: nothing}
	for _, stage := range append(stages(), asking) {
		t.Run(stage.name, func(t *testing.T) {
			r := r.in(t)
			r.rewrite()
			r.interrupted(stage, func() outcome {
				p := r.person("deploy")
				switch stage.name {
				case "login":
				case "password":
					p.sees("web: password for sudo: ")
				default:
					p.sees("web: password for sudo: ")
					p.types(lab.Password + "\n")
					p.sees("web: connect ")
				}
				r.await(stage)
				p.types("\x03")
				o := p.ends()
				if at := strings.LastIndex(o.errors, "\n") + 1; strings.TrimRight(o.errors[at:], "\r\x1b[K") != "" {
					t.Errorf("the last line has no end: %q", o.errors[at:])
				}
				return o
			})
		})
	}
}

// TestSIGTERMInEachStep does the same as a service manager would, without a terminal.
func TestSIGTERMInEachStep(t *testing.T) {
	t.Parallel()
	r := newRehearsal(t)
	r.rewrite()
	r.deploy()
	for _, stage := range stages() {
		t.Run(stage.name, func(t *testing.T) {
			r := r.in(t)
			r.rewrite()
			r.interrupted(stage, func() outcome {
				cmd, ended := r.background("deploy", "--sudo-password-file", r.password)
				r.await(stage)
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				return ended()
			})
		})
	}
}

// interrupted checks an interruption in a stage, and what it leaves.
func (r *rehearsal) interrupted(s stage, interrupt func() outcome) {
	r.t.Helper()
	before := r.state()
	s.begin(r)
	o := interrupt()
	if s.changes {
		// What has begun on the target goes on there.
		o.says(r.t, "ferry: error: web: "+s.name+": interrupted\n", "ferry: hint: it goes on there; its log on the target: /run/ferry/")
		if o.status != 5 {
			r.t.Errorf("status %d, want 5", o.status)
		}
		log := r.onTarget("sh", "-c", "cat /run/ferry/*-"+s.name+"/log")
		if !strings.Contains(log, s.name+": one") {
			r.t.Errorf("the log on the target is %q", log)
		}
	} else {
		o.says(r.t, "ferry: interrupted; no node was changed")
		if o.status != 130 || strings.Contains(o.errors, "error") {
			r.t.Errorf("status %d, want 130, and no error", o.status)
		}
	}
	s.release(r)
	r.nothingRuns()
	if !s.changes {
		r.want(r.state(), before)
	}
	greeting := r.rewrite()
	r.deploy()
	if got := r.onTarget("cat", "/etc/greeting"); got != greeting {
		r.t.Errorf("afterwards the target greets with %q, want %q", got, greeting)
	}
}

// TestKilledInEachStep kills ferry with SIGKILL, which it cannot notice: the next deployment works.
func TestKilledInEachStep(t *testing.T) {
	t.Parallel()
	r := newRehearsal(t)
	r.rewrite()
	r.deploy()
	for _, stage := range stages() {
		t.Run(stage.name, func(t *testing.T) {
			r := r.in(t)
			r.rewrite()
			stage.begin(r)
			cmd, ended := r.background("deploy", "--sudo-password-file", r.password)
			r.await(stage)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			ended()
			stage.release(r)
			if stage.changes {
				// The job is still at work, and would be said to be.
				until(t, "the job ends", func() bool {
					return r.onTarget("systemctl", "list-units", "--no-legend", "ferry-*") == ""
				})
			}
			greeting := r.rewrite()
			r.deploy()
			if got := r.onTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("afterwards the target greets with %q, want %q", got, greeting)
			}
		})
	}
}

// TestASecondSignalEndsFerryAtOnce sends it while ferry waits for a program that does not end.
func TestASecondSignalEndsFerryAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{bare: true, alone: true})
	asked := filepath.Join(s.builder.Home(), "asked")
	cmd, ended := s.background("deploy", "--sudo-password-command", "trap '' TERM INT; touch "+asked+"; while [ -e "+asked+" ]; do sleep 0.1; done")
	until(t, "the password is asked for", func() bool {
		_, err := os.Stat(s.builder.Path(asked))
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
	s.must("rm", asked)
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("ferry ended with %v, not by the second signal", cmd.ProcessState)
	}
}

// background starts ferry; the function it returns waits for its end.
func (s *site) background(args ...string) (*exec.Cmd, func() outcome) {
	s.t.Helper()
	cmd := s.command(args...)
	return cmd, s.begin(cmd)
}
