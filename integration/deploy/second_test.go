package deploy_test

import (
	"regexp"
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestASecondDeploymentIsToldOfTheFirst starts one while another is at work: it ends before its build does, which would
// take for ever, and says who is there since when. The first one goes on undisturbed.
func TestASecondDeploymentIsToldOfTheFirst(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	for _, stage := range []site.Stage{site.OnWire("ship", site.Shipped/2), site.OnTarget("activate")} {
		t.Run(stage.Name, func(t *testing.T) {
			r := r.In(t)
			greeting := r.Rewrite()
			stage.Begin(r)
			_, ended := r.Background("deploy", "--sudo-password-file", r.Password)
			r.Await(stage)
			second := *r
			copied := *r.Site
			second.Site = &copied
			second.Project += "-second"
			second.Inventory(second.Node("alice@" + second.Target.Name()))
			build := site.OnBuilder("build")
			build.Begin(&second)
			second.Rewrite()
			o := second.Ferry("deploy", "--sudo-password-file", second.Password)
			build.Release(&second)
			o.Fails(t, 1, "web: connect: root@", "wait until that is done, then run this again")
			if !regexp.MustCompile(`(?m)^ferry: error: web: connect: root@\S+ \(from 10\.\S+\) is deploying to this target since \d\d:\d\d:\d\d(: /nix/store/\S+-ferry-web)?$`).MatchString(o.Errors) {
				t.Errorf("who is at work, from where and since when, is not said:\n%s", o.Errors)
			}
			stage.Release(r)
			if o := ended(); o.Status != 0 || strings.Contains(o.Errors, "lost") {
				t.Errorf("the first one: status %d", o.Status)
			}
			if got := r.OnTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("the target greets with %q, want %q", got, greeting)
			}
			r.NothingRuns()
		})
	}
}
