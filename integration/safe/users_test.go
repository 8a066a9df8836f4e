package safe_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// The users of a system, and of another one: alice and bob, who are people of the machine's own, are declared by the other one
// alone, which leaves eve out and has fred.
const (
	usersBefore = `users.users.eve = { isNormalUser = true; hashedPassword = "$6$eve$declared"; };`
	usersAfter  = `users.users.alice = { isNormalUser = true; extraGroups = [ "wheel" ]; };
		users.users.bob = { isNormalUser = true; shell = "/bin/dash"; };
		users.users.fred.isNormalUser = true;
	`
)

// accountsThere is what a target knows of its users and groups. The numbers of those who are gone are not given away again.
const accountsThere = `cd /etc && for f in passwd group shadow subuid subgid /var/lib/nixos/declarative-users /var/lib/nixos/declarative-groups; do
	stat -c '%n %a %U %G' "$f" && cat "$f" && echo
done; sed 's/"\(fred\|alice\|bob\)":[0-9]*,\?//g' /var/lib/nixos/uid-map`

func accounts(s *site.Site) string { return s.OnTarget("sh", "-c", accountsThere) }

// withUsers makes a target that has users by hand, and a declared one who is not as she was declared.
func withUsers(s *site.Site) string {
	s.OnTarget("sh", "-c", `usermod -g carol eve && echo 'eve:$6$eve$hers' | chpasswd -e && echo 'bob:7000000:10' >>/etc/subuid`)
	return accounts(s)
}

// hasAccounts fails the test unless the target's accounts are as they were, and nothing of what was kept is left.
func hasAccounts(s *site.Site, want string) {
	s.T.Helper()
	got := accounts(s)
	if got != want {
		was := strings.Split(want, "\n")
		for _, line := range strings.Split(got, "\n") {
			if !strings.Contains(want, line) {
				s.T.Errorf("the accounts have %q", line)
			}
		}
		for _, line := range was {
			if !strings.Contains(got, line) {
				s.T.Errorf("the accounts lack %q", line)
			}
		}
		if !s.T.Failed() {
			s.T.Errorf("the accounts are in another order:\n%s", got)
		}
	}
	const left = `ls -d /var/lib/ferry/accounts /etc/systemd/system.control 2>/dev/null
find /run/ferry /var/lib/ferry /var/log/ferry -type f \( -perm /077 -o -not -user root \) -exec grep -l '\$6\$' {} + ; true`
	if found := s.OnTarget("sh", "-c", left); found != "" {
		s.T.Errorf("left on the target: %s", found)
	}
}

// TestGoingBackBringsTheUsersBack goes back from a system that declares people of the machine's own and leaves out others.
func TestGoingBackBringsTheUsersBack(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{Disk: true})
	x.Relay = x.Relayed(x.login, lab.RelayOptions{})
	x.rewrite(usersBefore)
	x.Deploy()
	was := withUsers(x.Site)
	x.OnTarget("sync")
	t.Run("as a check asks for it", func(t *testing.T) {
		x := x.in(t)
		x.rewrite(usersAfter + service("systemctl --no-block stop sshd"))
		if o := x.deploys(quickly); o.Status != 4 {
			t.Errorf("status %d", o.Status)
		}
		hasAccounts(x.Site, was)
	})
	t.Run("but keeps a password that was changed meanwhile", func(t *testing.T) {
		x := x.in(t)
		x.rewrite(usersAfter)
		_, ended := x.begin(confirm)
		x.OnTarget("sh", "-c", `echo 'carol:$6$carol$new' | chpasswd -e && test "$(stat -c %a `+folder+`/accounts-before)" = 600`)
		x.OnTarget("sh", "-c", `echo '{"verdict":"back","reason":"no"}' >`+folder+`/verdict`)
		x.goOn(confirm)
		if o := ended(); o.Status != 4 {
			t.Errorf("status %d", o.Status)
		}
		if got := x.OnTarget("getent", "shadow", "carol"); !strings.HasPrefix(got, "carol:$6$carol$new:") {
			t.Errorf("her password is %q", got)
		}
		x.OnTarget("sh", "-c", `sed -i "s|^carol:.*|$0|" /etc/shadow`, lineOf(was, "carol:$6$"))
		hasAccounts(x.Site, was)
	})
	for _, phase := range []site.Stage{activate, confirm} {
		t.Run("after a power cut, "+phase.Name, func(t *testing.T) {
			x := x.in(t)
			x.rewrite(usersAfter)
			_, ended := x.begin(phase)
			if phase.Name == confirm.Name && !strings.Contains(x.OnTarget("cat", "/etc/passwd"), "fred:") {
				t.Error("the new system's users are not there")
			}
			if err := x.Target.Kill(); err != nil {
				t.Fatal(err)
			}
			x.Relay.Cut()
			if err := x.Target.PowerOn(t.Context()); err != nil {
				t.Fatal(err)
			}
			if o := ended(); o.Status != 4 {
				t.Errorf("status %d", o.Status)
			}
			hasAccounts(x.Site, was)
		})
	}
	t.Run("by the next boot after a test", func(t *testing.T) {
		x := x.in(t)
		x.rewrite(usersAfter)
		x.Deploy("--action", "test")
		x.Reboot()
		hasAccounts(x.Site, was)
	})
}

// TestARollbackBringsTheUsersBack returns from a system that was committed, and has run for a while.
func TestARollbackBringsTheUsersBack(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{Disk: true})
	x.rewrite(usersBefore)
	x.Deploy()
	was := withUsers(x.Site)
	x.rewrite(usersAfter)
	x.Deploy("--allow-lockout")
	x.OnTarget("sh", "-c", `echo 'carol:$6$carol$new' | chpasswd -e`)
	if got := x.OnTarget("stat", "-c", "%a %U", "/var/lib/ferry/last-accounts"); got != "600 root" {
		t.Errorf("what it has changed is kept with %s", got)
	}
	if o := x.Ferry("rollback", "--sudo-password-file", x.Password); o.Status != 0 {
		t.Fatalf("status %d", o.Status)
	}
	got := accounts(x.Site)
	for _, beginning := range []string{"alice:x:", "alice:$6$", "bob:x:1001:1001:", "bob:$6$", "eve:x:", "eve:$6$eve$hers"} {
		if line := lineOf(was, beginning); line == "" || !strings.Contains(got, line+"\n") {
			t.Errorf("the accounts lack %q", line)
		}
	}
	if !strings.Contains(got, "carol:$6$carol$new:") {
		t.Error("a password that was changed meanwhile is not kept")
	}
	if strings.Contains(got, "fred") {
		t.Error("a user of the other system is still there")
	}
}

// lineOf is the line of a text that begins so.
func lineOf(text, beginning string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, beginning) {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}

// TestARebootThatComesBackBringsTheUsersBack locks the same for a system that is tried by a reboot.
func TestARebootThatComesBackBringsTheUsersBack(t *testing.T) {
	t.Parallel()
	s := newRebootable(t, systemdBoot)
	s.configure("first", usersBefore)
	s.Deploy()
	s.first = s.OnTarget("readlink", "-f", "/run/current-system")
	s.Reboot()
	was := withUsers(s.Site)
	s.configure("unreachable", usersAfter+`services.openssh.extraConfig = "DenyUsers alice";`)
	s.must(s.reboots("--allow-lockout", "--reboot-timeout", "40s"), 4, "came back with the old system")
	s.clean(3)
	s.runs("first")
	hasAccounts(s.Site, was)
}

// TestAUnitThatIsStartedAgainAndAgainIsNamed has one that is hardly ever in the failed state, and one that had failed before.
func TestAUnitThatIsStartedAgainAndAgainIsNamed(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{Disk: true})
	const loop = `= { wantedBy = [ "multi-user.target" ]; serviceConfig = { ExecStart = "/bin/sh -c 'sleep 0.05; exit 3'"; Restart = "always"; RestartSec = "3"; }; };`
	x.OnTarget("systemd-run", "--unit=failed-before", "/bin/false")
	site.Until(t, "it has failed", func() bool {
		return strings.Contains(x.OnTarget("systemctl", "--failed", "--no-legend"), "failed-before")
	})
	before := x.State()
	x.rewrite("systemd.services.loops " + loop)
	o := x.deploys()
	if o.Status != 4 {
		t.Errorf("status %d", o.Status)
	}
	o.Says(t, "units failed: loops.service; the target rolled back to nixos-system-web-")
	x.OnTarget("systemctl", "reset-failed")
	x.is(before)
	x.OnTarget("systemd-run", "--unit=looped-before", "-p", "Restart=always", "-p", "RestartSec=3", "/bin/sh", "-c", "sleep 0.05; exit 3")
	site.Until(t, "it is started again", func() bool {
		return x.OnTarget("systemctl", "show", "-p", "NRestarts", "--value", "looped-before") != "0"
	})
	greeting := x.rewrite("")
	x.Deploy()
	x.OnTarget("systemctl", "stop", "looped-before")
	x.isNew(greeting)
}
