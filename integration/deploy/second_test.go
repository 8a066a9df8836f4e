package deploy_test

import (
	"regexp"
	"strings"
	"testing"
)

// TestASecondDeploymentIsToldOfTheFirst starts one while another is at work: it ends before its build does, which would
// take for ever, and says who is there since when. The first one goes on undisturbed.
func TestASecondDeploymentIsToldOfTheFirst(t *testing.T) {
	t.Parallel()
	r := newRehearsal(t)
	for _, stage := range []stage{onWire("ship", shipped/2), onTarget("activate")} {
		t.Run(stage.name, func(t *testing.T) {
			r := r.in(t)
			greeting := r.rewrite()
			stage.begin(r)
			_, ended := r.background("deploy", "--sudo-password-file", r.password)
			r.await(stage)
			second := *r
			copied := *r.site
			second.site = &copied
			second.project += "-second"
			second.inventory(second.node("alice@" + second.target.Name()))
			build := onBuilder("build")
			build.begin(&second)
			second.rewrite()
			o := second.ferry("deploy", "--sudo-password-file", second.password)
			build.release(&second)
			o.fails(t, 1, "web: connect: root@", "wait until that is done, then run this again")
			if !regexp.MustCompile(`(?m)^ferry: error: web: connect: root@\S+ is deploying to this target since \d\d:\d\d:\d\d$`).MatchString(o.errors) {
				t.Errorf("who is at work, and since when, is not said:\n%s", o.errors)
			}
			stage.release(r)
			if o := ended(); o.status != 0 || strings.Contains(o.errors, "lost") {
				t.Errorf("the first one: status %d", o.status)
			}
			if got := r.onTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("the target greets with %q, want %q", got, greeting)
			}
			r.nothingRuns()
		})
	}
}
