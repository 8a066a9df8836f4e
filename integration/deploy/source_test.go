package deploy_test

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestOneMachineNeedsNoInventory deploys what three flags say.
func TestOneMachineNeedsNoInventory(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Must("rm", s.Project+"/ferry.nix")
	address := "alice@" + s.Target.Name()
	flags := []string{"--configuration", "web/configuration.nix", "--nixpkgs", s.Nixpkgs, "--system", "x86_64-linux", address}
	s.Deploy(flags...).Says(t, s.Target.Name()+": done: generation 2, ")
	if got := s.State(); got.Greeting != "first" || got.Boots != got.Runs || got.Bundle == "" {
		t.Errorf("the target is left as %+v", got)
	}
	s.Deploy(flags...).Says(t, s.Target.Name()+": nothing to do")
	// A tree that is not in the store yet is put there.
	s.Must("cp", "-r", s.Nixpkgs, s.Project+"-nixpkgs")
	flags[3] = s.Project + "-nixpkgs"
	s.Deploy(flags...).Says(t, s.Target.Name()+": nothing to do")

	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no nixpkgs":    {[]string{"--configuration", "web/configuration.nix", address}, "--configuration needs --nixpkgs PATH"},
		"no target":     {[]string{"--configuration", "web/configuration.nix", "--nixpkgs", s.Nixpkgs}, "with --configuration, name one target"},
		"not there":     {[]string{"--configuration", "nothing.nix", "--nixpkgs", s.Nixpkgs, address}, "nothing.nix: no such file"},
		"wrong system":  {append([]string{"--system", "x86-linux"}, append(flags[:4:4], address)...), "x86-linux"},
		"and inventory": {append([]string{"-f", "ferry.nix"}, flags...), "exclude each other"},
	} {
		o := s.Ferry(append([]string{"deploy"}, c.args...)...)
		if o.Status != 10 || !strings.Contains(o.Errors, c.says) {
			t.Errorf("%s: status %d, want 10 and %q", name, o.Status, c.says)
		}
	}
}

// TestTheSourceIsWhatGitKnowsAsItIsNow deploys from a work tree with changes that are not committed, and from a folder in it.
func TestTheSourceIsWhatGitKnowsAsItIsNow(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	git := func(args ...string) string {
		t.Helper()
		return s.Must("git", append([]string{"-C", s.Project, "-c", "user.name=Test", "-c", "user.email=test@example.com"}, args...)...)
	}
	s.Write("notes.txt", "not for everyone\n")
	git("init", "--quiet")
	git("add", "ferry.nix", "web")
	git("commit", "--quiet", "-m", "first")
	s.Write("web/configuration.nix", site.Configuration("not committed"))
	s.Deploy()
	if got := s.State().Greeting; got != "not committed" {
		t.Errorf("the target greets with %q", got)
	}
	if got := s.OnTarget("ls", "-A", "/etc/nixos/current-configuration/source/"); got != "ferry.nix\nweb" {
		t.Errorf("the source has\n%s", got)
	}
	manifest := s.OnTarget("cat", "/etc/nixos/current-configuration/ferry.json")
	if revision := strings.TrimSpace(git("rev-parse", "HEAD")); !strings.Contains(manifest, revision) {
		t.Errorf("ferry.json does not name the commit %s:\n%s", revision, manifest)
	}

	// From a subfolder it is the same, bundle and all.
	ferry := func(args ...string) site.Outcome {
		cmd := s.Builder.Command(t.Context(), "sh", append([]string{"-c", `cd "$0" && exec ferry "$@"`, filepath.Join(s.Project, "web")}, args...)...)
		return s.Run(cmd)
	}
	o := ferry("deploy", "--sudo-password-file", s.Password)
	o.Says(t, "web: nothing to do")
	if o := ferry("build", "-f", "../ferry.nix"); o.Out != s.Bundle()+"\n" {
		t.Errorf("from below, the bundle is %s", o.Out)
	}

	s.Write("web/configuration.nix", site.With(site.Configuration("first"), "  imports = [ ./more.nix ];"))
	s.Write("web/more.nix", "{ }\n")
	o = s.Ferry("build")
	if o.Status != 1 {
		t.Errorf("a file that git does not know: status %d", o.Status)
	}
	o.Says(t, "ferry: error: web: evaluate: ", "ferry: hint: web/more.nix exists, but git does not know it: git add "+s.Project+"/web/more.nix")
	git("add", "--intent-to-add", "web/more.nix")
	s.Bundle()
}
