package deploy_test

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestRootThatCannotBeHad goes through what sudo and doas refuse for, when there is no terminal.
func TestRootThatCannotBeHad(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{bare: true})
	wrong := filepath.Join(s.builder.Home(), "wrong-password")
	if err := s.builder.WriteFile(wrong, []byte("guess\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, login string
		elevate     string
		args        []string
		text        string
		hints       []string
	}{
		{"a wrong password from a file", "alice", "", []string{"--sudo-password-file", wrong},
			"web: connect: sudo: the password from --sudo-password-file was wrong", nil},
		{"a wrong password from a command", "alice", "", []string{"--sudo-password-command", "echo guess"},
			"web: connect: sudo: the password from --sudo-password-command was wrong", nil},
		{"a file that is not there", "alice", "", []string{"--sudo-password-file", "nowhere"},
			"web: connect: --sudo-password-file: open nowhere: no such file or directory", nil},
		{"a command that fails", "alice", "", []string{"--sudo-password-command", "echo locked >&2; exit 3"},
			"web: connect: --sudo-password-command: sh: exit status 3: locked", nil},
		{"no terminal to ask on", "alice", "", nil,
			"web: connect: sudo asks for a password, and there is no terminal to ask on", []string{"--sudo-password-file or --sudo-password-command"}},
		{"a user who is not in sudoers", "carol", "", []string{"--sudo-password-file", s.password},
			"web: connect: sudo: the user may not use sudo there", []string{`extraGroups = [ "wheel" ]`}},
		{"sudo that insists on a terminal", "rita", "", []string{"--sudo-password-file", s.password},
			"web: connect: sudo: sudo insists on a terminal there", []string{"requiretty"}},
		{"doas that wants a password", "dave", `elevate = "doas";`, []string{"--sudo-password-file", s.password},
			"web: connect: doas: doas wants to ask for a password on a terminal", []string{"nopass"}},
		{"doas that knows the user not", "alice", `elevate = "doas";`, nil,
			"web: connect: doas: doas does not let this user in", []string{"or log in as a user that may"}},
		{"a command that is not there", "alice", `elevate = [ "run0" ];`, nil,
			"web: connect: run0: run0 is not there", []string{"set `elevate`"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			s.inventory(s.node(c.login+"@"+s.target.Name(), c.elevate))
			s.ferry(append([]string{"deploy"}, c.args...)...).fails(t, 1, c.text, c.hints...)
		})
	}
	t.Run("sudo that is not there", func(t *testing.T) {
		s := s.in(t)
		s.onTarget("mv", "/usr/bin/sudo", "/usr/bin/sudo.away")
		s.inventory(s.node("alice@" + s.target.Name()))
		s.ferry("deploy").fails(t, 1, "web: connect: sudo: sudo is not there", "set `elevate` of the node")
	})
	if n, err := s.target.Elevations(t.Context()); err != nil || n != 0 {
		t.Errorf("%d commands ran as root, %v", n, err)
	}
	if got := s.onTarget("sh", "-c", "ls -A /var/lib/ferry 2>/dev/null; true"); got != "" {
		t.Errorf("something was installed: %s", got)
	}
}

// TestAWrongPasswordIsAskedForAgain types wrong ones on a terminal: three end the deployment, fewer do not.
func TestAWrongPasswordIsAskedForAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	const first, again = "web: password for sudo: ", "web: wrong password, try again: "
	p := s.person("deploy")
	for _, prompt := range []string{first, again, again} {
		p.sees(prompt)
		p.types("a guess\n")
	}
	o := p.ends()
	o.says(t, "ferry: error: web: connect: sudo: the password was wrong")
	if o.status != 1 || strings.Count(o.errors, "try again") != 2 || strings.Contains(o.errors, "guess") {
		t.Errorf("status %d:\n%s", o.status, o.errors)
	}
	s.want(s.state(), before)

	logins := s.counts()
	p = s.person("deploy")
	p.sees(first)
	p.types("a guess\n")
	p.sees(again)
	p.types(lab.Password + "\n")
	p.sees("web: done: generation 2")
	if o := p.ends(); o.status != 0 || strings.Contains(o.errors, "horse") {
		t.Errorf("status %d:\n%s", o.status, o.errors)
	}
	if got, want := s.counts().minus(logins), (counts{1, 1, 0}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
