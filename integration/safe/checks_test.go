package safe_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// Services that a check can ask for: a page, one that needs a moment to start, and a port that never answers.
const services = `
  systemd.services.page = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox httpd -f -p 8080 -h ${pkgs.writeTextDir "index.html" "all is well\n"}";
  };
  systemd.services.slow = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sh -c 'sleep 2; exec ${pkgs.busybox}/bin/busybox httpd -f -p 8082 -h /etc'";
  };
  systemd.services.silent = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox nc -ll -p 8081 -e ${pkgs.busybox}/bin/busybox sleep 1000";
  };
`

// checked gives the node these checks. In them TARGET is the target's address.
func (x *trial) checked(checks string) {
	x.T.Helper()
	checks = strings.ReplaceAll(checks, "TARGET", x.Target.Addr().String())
	x.Inventory(x.Node(x.login+"@"+x.Target.Name(), "    checks = {\n"+checks+"\n    };\n"))
}

// aCheck is one that fails: what the configuration has for it, the check, and how it is told.
type aCheck struct {
	name, more, check string
	says              string
	hints             []string
	shows             string // lines of the program or page, before the message
}

// everyCheck are the kinds of checks that fail, each in each way. They have the target's address in them.
func everyCheck() []aCheck {
	const tried = "it was tried for 1s; if that is too short: checks.http[0].timeout in the inventory"
	const log = "the whole log is on the target: /run/ferry/"
	http := func(attributes string) string { return "http = [ { timeout = 1; " + attributes + " } ];" }
	return []aCheck{
		{"a new unit that fails", `systemd.services.broken = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/no/such/program"; };`,
			`units.failed = "no-new";`, "activate: units failed: broken.service", []string{log}, ""},
		{"another page's status", services, http(`url = "http://TARGET:8080/missing";`),
			"check: http http://TARGET:8080/missing: status 404, expected 200", []string{tried, log}, "404"},
		{"a status that is better than expected", services, http(`url = "http://TARGET:8080/"; status = 401;`),
			"check: http http://TARGET:8080/: status 200, expected 401", []string{tried, log}, "  all is well\n"},
		{"another text", services, http(`url = "http://TARGET:8080/"; contains = "half is well";`),
			`check: http http://TARGET:8080/: the answer does not contain "half is well"`, []string{tried, log}, "  all is well\n"},
		{"nobody listens", services, http(`url = "http://TARGET:8099/";`),
			"check: http http://TARGET:8099/: dial tcp TARGET:8099: connect: connection refused", []string{tried, log}, ""},
		{"no answer", services, http(`url = "http://TARGET:8081/";`),
			"check: http http://TARGET:8081/: no answer within 1s", []string{tried, log}, ""},
		{"nobody listens on the target", services, http(`url = "http://localhost:8099/"; from = "target";`),
			"check: http http://localhost:8099/ from the target: connect to localhost:8099: connection refused", []string{tried, log}, ""},
		{"no answer on the target", services, http(`url = "http://localhost:8081/"; from = "target";`),
			"check: http http://localhost:8081/ from the target: no answer within 1s", []string{tried, log}, ""},
		{"a name that the target does not know", services, http(`url = "http://nowhere.invalid/"; from = "target";`),
			"check: http http://nowhere.invalid/ from the target: ", []string{tried, log}, ""},
		{"a command's status", "", `commands = [ { run = [ "sh" "-c" "echo $((40+2)) rows; exit 3" ]; } ];`,
			"check: command sh -c 'echo $((40+2)) rows; exit 3': exit status 3", []string{log}, "  42 rows\n"},
		{"a command that does not end", "", `commands = [ { run = [ "sh" "-c" "echo $((40+2)) rows; sleep 7779" ]; timeout = 1; } ];`,
			"check: command sh -c 'echo $((40+2)) rows; sleep 7779': did not end within 1s",
			[]string{"if it may take longer: checks.commands[0].timeout in the inventory", log}, "  42 rows\n"},
		{"a command that is not there", "", `commands = [ { run = [ "pg_isready" ]; } ];`,
			"check: command pg_isready: ", []string{log}, ""},
		{"one of many", services, `http = [ { url = "http://TARGET:8080/"; } ]; commands = [ { run = [ "true" ]; } { run = [ "false" ]; } { run = [ "true" ]; } ];`,
			"check: command false: exit status 1", []string{log}, "web | http http://TARGET:8080/: ok\n"},
	}
}

// goesBackFrom deploys what a check does not let pass.
func (x *trial) goesBackFrom(t *testing.T, c aCheck) {
	t.Helper()
	before := x.State()
	greeting := x.rewrite(c.more)
	x.checked(c.check)
	o := x.deploys()
	here := func(text string) string { return strings.ReplaceAll(text, "TARGET", x.Target.Addr().String()) }
	o.Fails(t, 4, "web: "+here(c.says), c.hints...)
	o.Says(t, "; the target rolled back to nixos-system-web-", here(c.shows))
	x.is(before)
	if e := x.lastEntry(); e.Outcome != "rolled back" || !strings.HasPrefix(e.Reason, here(afterStep(c.says))) || e.After != e.Before {
		t.Errorf("the journal says %+v; it was to greet with %q", e, greeting)
	}
}

// afterStep is a message without its step.
func afterStep(text string) string {
	_, text, _ = strings.Cut(text, ": ")
	return text
}

// TestACheckThatFailsGoesBack has each kind of check, failing in each way.
func TestACheckThatFailsGoesBack(t *testing.T) {
	t.Parallel()
	for _, login := range []string{"alice", "root"} {
		t.Run(login, func(t *testing.T) {
			t.Parallel()
			x := newTrial(t, login, lab.Options{})
			for _, c := range everyCheck() {
				// As root nothing but the login is another one.
				if login == "root" && c.name != "another text" && c.name != "nobody listens on the target" && c.name != "a command's status" {
					continue
				}
				t.Run(c.name, func(t *testing.T) { x.in(t).goesBackFrom(t, c) })
			}
			greeting := x.rewrite("")
			x.checked("")
			x.Deploy()
			x.isNew(greeting)
		})
	}
}

// TestUnitsThatFailAreJudgedAsTheInventorySays has a unit that fails before the deployment and after it, and one that fails
// by it.
func TestUnitsThatFailAreJudgedAsTheInventorySays(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	broken := func(name string) string {
		return fmt.Sprintf(`systemd.services.%s = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/no/such/program"; };`, name)
	}
	// NixOS forgets what has failed when it switches, and tries again to start it.
	old := broken("old-trouble")
	tidy := func(x *trial) { x.OnTarget("systemctl", "reset-failed") }
	deploys := func(x *trial, policy, more string) (string, site.Outcome) {
		greeting := x.rewrite(more)
		x.checked(fmt.Sprintf("units.failed = %q;", policy))
		return greeting, x.deploys()
	}
	for _, c := range []struct{ name, policy, more, says string }{
		{"no-new, and one fails", "no-new", old, "activate: units failed: old-trouble.service"},
		{"ignore, and one fails", "ignore", old, ""},
		{"no-new, and one fails again", "no-new", old, ""},
		{"none, and one fails again", "none", old, "activate: units are in the failed state: old-trouble.service"},
		{"no-new, and one more fails", "no-new", old + broken("new-trouble"), "activate: units failed: new-trouble.service"},
		{"none, and none fails", "none", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := x.in(t)
			before := x.State()
			greeting, o := deploys(x, c.policy, c.more)
			tidy(x)
			if c.says == "" {
				if o.Status != 0 {
					t.Errorf("status %d", o.Status)
				}
				x.isNew(greeting)
			} else {
				o.Fails(t, 4, "web: "+c.says+"; the target rolled back to ", "the whole log is on the target")
				x.is(before)
			}
			// It fails in the next part, as it did in this one.
			if strings.Contains(c.name, "again") || strings.HasPrefix(c.name, "ignore") {
				x.OnTarget("sh", "-c", "systemctl start old-trouble; true")
			}
		})
	}
}

// TestChecksThatPassAreCommittedAfter has each kind of check pass, among them of a service that needs a moment, and of a name
// that only the target knows.
func TestChecksThatPassAreCommittedAfter(t *testing.T) {
	t.Parallel()
	eachLogin(t, func(t *testing.T, x *trial) {
		x.OnTarget("sh", "-c", "echo 127.0.0.1 inside.example >>/etc/hosts")
		greeting := x.rewrite(services)
		x.Write("check.sh", "#!/bin/sh\nset -e\n[ $(id -u) = 0 ]\ngrep -q . /etc/greeting\n[ $(readlink /run/current-system) != $(readlink -f /nix/var/nix/profiles/system) ]\n")
		x.Must("chmod", "755", x.Project+"/check.sh")
		x.checked(`units.failed = "none";
    http = [
      { url = "http://TARGET:8080/"; contains = "all is well"; }
      { url = "http://TARGET:8080/missing"; status = 404; }
      { url = "http://TARGET:8082/greeting"; contains = "` + greeting + `"; }
      { url = "http://inside.example:8080/"; from = "target"; contains = "all is well"; }
      { url = "http://localhost:8082/greeting"; from = "target"; }
    ];
    commands = [ { run = [ "true" ]; } { run = [ ./check.sh ]; } ];`)
		o := x.Deploy()
		o.Says(t, "web | http http://inside.example:8080/ from the target: ok\n", "web | command true: ok\n", "web: check     7 checks passed", "generation ")
		if check, commit := strings.Index(o.Errors, "web: check "), strings.Index(o.Errors, "web: commit "); check < 0 || commit < check {
			t.Errorf("the checks are not before the commit:\n%s", o.Errors)
		}
		x.isNew(greeting)
	})
}

// TestChecksOfATestAreMadeToo tries a system that does not answer, and one that does.
func TestChecksOfATestAreMadeToo(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	before := x.State()
	x.rewrite(services)
	x.checked(`commands = [ { run = [ "false" ]; } ];`)
	x.deploys("--action", "test").Fails(t, 4, "web: check: command false: exit status 1; the target rolled back to ", "the whole log")
	x.is(before)
	x.checked(`http = [ { url = "http://TARGET:8080/"; } ];`)
	x.Deploy("--action", "test").Says(t, "until the next boot")
	x.isSettled()
	after := x.State()
	if after.Runs == before.Runs || after.Boots != before.Boots || after.Profile != before.Profile || after.Bundle != before.Bundle {
		t.Errorf("the target is left as %+v, and was %+v", after, before)
	}
}
