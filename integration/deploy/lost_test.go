package deploy_test

import (
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestALostConnectionIsMadeAgain cuts the connection in each step: only one that is not there yet ends the deployment.
func TestALostConnectionIsMadeAgain(t *testing.T) {
	t.Parallel()
	r := newRehearsal(t)
	r.rewrite()
	r.deploy()
	for _, stage := range stages() {
		t.Run(stage.name, func(t *testing.T) {
			r := r.in(t)
			before, greeting := r.state(), r.rewrite()
			stage.begin(r)
			logins, up := r.counts().logins, r.relay.Traffic().Up
			p := r.person("deploy")
			if stage.name != "login" {
				p.sees("web: password for sudo: ")
				p.types(lab.Password + "\n")
				p.sees("web: connect ")
			}
			r.await(stage)
			r.relay.Cut()
			stage.release(r)
			o := p.ends()
			defer r.nothingRuns()
			if stage.name == "login" {
				o.says(t, "ferry: error: web: connect: ssh ", "ferry: hint: ")
				if o.status != 1 {
					t.Errorf("status %d", o.status)
				}
				r.want(r.state(), before)
				return
			}
			if o.status != 0 {
				t.Errorf("status %d", o.status)
			}
			if got := r.onTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("the target greets with %q, want %q", got, greeting)
			}
			if got := r.counts().logins - logins; got != 2 {
				t.Errorf("%d logins, want 2", got)
			}
			if n := strings.Count(o.errors, "password for sudo"); n != 1 || strings.Contains(o.errors, "horse") {
				t.Errorf("the password was asked for %d times, or shown", n)
			}
			for _, line := range []string{"activate: one", "activate: two", "commit: one", "commit: two"} {
				if n := strings.Count(o.errors, "web | "+line+"\n"); n != 1 {
					t.Errorf("the line %q is there %d times", line, n)
				}
			}
			if sent := r.relay.Traffic().Up - up; sent > shipped*3/2 {
				t.Errorf("%d bytes were sent, of %d", sent, shipped)
			}
		})
	}
}
