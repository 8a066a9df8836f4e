package deploy_test

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestRootThatCannotBeHad goes through what sudo and doas refuse for, when there is no terminal.
func TestRootThatCannotBeHad(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true})
	wrong := filepath.Join(s.Builder.Home(), "wrong-password")
	if err := s.Builder.WriteFile(wrong, []byte("guess\n"), 0o600); err != nil {
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
		{"a user who is not in sudoers", "carol", "", []string{"--sudo-password-file", s.Password},
			"web: connect: sudo: the user may not use sudo there", []string{`extraGroups = [ "wheel" ]`}},
		{"sudo that insists on a terminal", "rita", "", []string{"--sudo-password-file", s.Password},
			"web: connect: sudo: sudo insists on a terminal there", []string{"requiretty"}},
		{"a wrong password for doas from a file", "dave", `elevate = "doas";`, []string{"--sudo-password-file", wrong},
			"web: connect: doas: the password from --sudo-password-file was wrong", nil},
		{"no terminal to ask on for doas", "dave", `elevate = "doas";`, nil,
			"web: connect: doas asks for a password, and there is no terminal to ask on", []string{"--sudo-password-file or --sudo-password-command"}},
		{"doas that knows the user not", "alice", `elevate = "doas";`, nil,
			"web: connect: doas: doas does not let this user in", []string{"or log in as a user that may"}},
		{"a command that is not there", "alice", `elevate = [ "run0" ];`, nil,
			"web: connect: run0: run0 is not there", []string{"set `elevate`"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.In(t)
			s.Inventory(s.Node(c.login+"@"+s.Target.Name(), c.elevate))
			s.Ferry(append([]string{"deploy"}, c.args...)...).Fails(t, 1, c.text, c.hints...)
		})
	}
	t.Run("sudo that is not there", func(t *testing.T) {
		s := s.In(t)
		s.OnTarget("mv", "/usr/bin/sudo", "/usr/bin/sudo.away")
		s.Inventory(s.Node("alice@" + s.Target.Name()))
		s.Ferry("deploy").Fails(t, 1, "web: connect: sudo: sudo is not there", "set `elevate` of the node")
	})
	if n, err := s.Target.Elevations(t.Context()); err != nil || n != 0 {
		t.Errorf("%d commands ran as root, %v", n, err)
	}
	if got := s.OnTarget("sh", "-c", "ls -A /var/lib/ferry 2>/dev/null; true"); got != "" {
		t.Errorf("something was installed: %s", got)
	}
}

// TestAWrongPasswordIsAskedForAgain types wrong ones on a terminal: three end the deployment, fewer do not.
func TestAWrongPasswordIsAskedForAgain(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	const first, again = "web: password for sudo: ", "web: wrong password, try again: "
	p := s.Person("deploy")
	for _, prompt := range []string{first, again, again} {
		p.Sees(prompt)
		p.Types("a guess\n")
	}
	o := p.Ends()
	o.Says(t, "ferry: error: web: connect: sudo: the password was wrong")
	if o.Status != 1 || strings.Count(o.Errors, "try again") != 2 || strings.Contains(o.Errors, "guess") {
		t.Errorf("status %d:\n%s", o.Status, o.Errors)
	}
	s.Want(s.State(), before)

	logins := s.Counts()
	p = s.Person("deploy")
	p.Sees(first)
	p.Types("a guess\n")
	p.Sees(again)
	p.Types(lab.Password + "\n")
	p.Sees("web: done: generation 2")
	if o := p.Ends(); o.Status != 0 || strings.Contains(o.Errors, "horse") {
		t.Errorf("status %d:\n%s", o.Status, o.Errors)
	}
	if got, want := s.Counts().Minus(logins), (site.Counts{Logins: 3, Elevations: 1}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
