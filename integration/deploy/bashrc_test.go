package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestALoginShellThatDoesSomethingElseIsTold gives the login a ~/.bashrc that runs another shell, or that reads its input: what is
// wrong is told at once, and what is to be put in front of it. With that, and with one that only reads for a moment, deployments work.
func TestALoginShellThatDoesSomethingElseIsTold(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Login: "bob"})
	write := func(bashrc string) {
		t.Helper()
		if err := s.Target.WriteFile(t.Context(), "/home/bob/.bashrc", []byte(bashrc+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const guard = "case $- in *i*) ;; *) return;; esac"
	for bashrc, says := range map[string]string{
		"exec zsh":         "starts another shell instead of running what ferry asks for",
		"echo hi; exec sh": "starts another shell instead of running what ferry asks for",
		"read -r x":        "reads the input that is ferry's",
		"cat >/dev/null":   "reads the input that is ferry's",
	} {
		write(bashrc)
		s.Ferry("deploy").Fails(t, 1, "web: connect: the login shell on bob@"+s.Target.Name()+" "+says, guard)
		if o := s.Ferry("status"); !strings.Contains(o.Out, "the login shell on bob@") {
			t.Errorf("%s: status says\n%s\n%s", bashrc, o.Out, o.Errors)
		}
	}
	// That is over before it is held against them, and takes no word that is ferry's.
	write("read -r -t 1 x; read -r -t 1 y")
	s.Deploy().Says(t, "web: done: generation 2")
	write(guard + "\nread -r x; exec zsh")
	s.Write("web/configuration.nix", site.Configuration("second"))
	s.Deploy().Says(t, "web: done: generation 3")
}
