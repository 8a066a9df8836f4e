package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestALostConnectionIsMadeAgain cuts the connection in each step: only one that is not there yet ends the deployment.
func TestALostConnectionIsMadeAgain(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	r.Rewrite()
	r.Deploy()
	for _, stage := range site.Stages() {
		t.Run(stage.Name, func(t *testing.T) {
			r := r.In(t)
			before, greeting := r.State(), r.Rewrite()
			stage.Begin(r)
			logins, up := r.Counts().Logins, r.Relay.Traffic().Up
			p := r.Person("deploy")
			if stage.Name != "login" {
				p.Sees("web: password for sudo: ")
				p.Types(lab.Password + "\n")
				p.Sees("web: connect ")
			}
			r.Await(stage)
			r.Relay.Cut()
			stage.Release(r)
			o := p.Ends()
			defer r.NothingRuns()
			if stage.Name == "login" {
				o.Says(t, "ferry: error: web: connect: ssh ", "ferry: hint: ")
				if o.Status != 1 {
					t.Errorf("status %d", o.Status)
				}
				r.Want(r.State(), before)
				return
			}
			if o.Status != 0 {
				t.Errorf("status %d", o.Status)
			}
			if got := r.OnTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("the target greets with %q, want %q", got, greeting)
			}
			if got := r.Counts().Logins - logins; got != 4 {
				t.Errorf("%d logins, want 2, one that is tried, and one to confirm", got)
			}
			if n := strings.Count(o.Errors, "password for sudo"); n != 1 || strings.Contains(o.Errors, "horse") {
				t.Errorf("the password was asked for %d times, or shown", n)
			}
			for _, line := range []string{"activate: one", "activate: two", "commit: one", "commit: two"} {
				if n := strings.Count(o.Errors, "web | "+line+"\n"); n != 1 {
					t.Errorf("the line %q is there %d times", line, n)
				}
			}
			if sent := r.Relay.Traffic().Up - up; sent > site.Shipped*3/2 {
				t.Errorf("%d bytes were sent, of %d", sent, site.Shipped)
			}
		})
	}
}
