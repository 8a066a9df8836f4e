package deploy_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestOneMachineNeedsNoInventory deploys what three flags say.
func TestOneMachineNeedsNoInventory(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.must("rm", s.project+"/ferry.nix")
	address := "alice@" + s.target.Name()
	flags := []string{"--configuration", "web/configuration.nix", "--nixpkgs", s.nixpkgs, "--system", "x86_64-linux", address}
	s.deploy(flags...).says(t, s.target.Name()+": done: generation 2, ")
	if got := s.state(); got.greeting != "first" || got.boots != got.runs || got.bundle == "" {
		t.Errorf("the target is left as %+v", got)
	}
	s.deploy(flags...).says(t, s.target.Name()+": nothing to do")
	// A tree that is not in the store yet is put there.
	s.must("cp", "-r", s.nixpkgs, s.project+"-nixpkgs")
	flags[3] = s.project + "-nixpkgs"
	s.deploy(flags...).says(t, s.target.Name()+": nothing to do")

	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no nixpkgs":    {[]string{"--configuration", "web/configuration.nix", address}, "--configuration needs --nixpkgs PATH"},
		"no target":     {[]string{"--configuration", "web/configuration.nix", "--nixpkgs", s.nixpkgs}, "with --configuration, name one target"},
		"not there":     {[]string{"--configuration", "nothing.nix", "--nixpkgs", s.nixpkgs, address}, "nothing.nix: no such file"},
		"wrong system":  {append([]string{"--system", "x86-linux"}, append(flags[:4:4], address)...), "x86-linux"},
		"and inventory": {append([]string{"-f", "ferry.nix"}, flags...), "exclude each other"},
	} {
		o := s.ferry(append([]string{"deploy"}, c.args...)...)
		if o.status != 10 || !strings.Contains(o.errors, c.says) {
			t.Errorf("%s: status %d, want 10 and %q", name, o.status, c.says)
		}
	}
}

// TestTheSourceIsWhatGitKnowsAsItIsNow deploys from a work tree with changes that are not committed, and from a folder in it.
func TestTheSourceIsWhatGitKnowsAsItIsNow(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	git := func(args ...string) string {
		t.Helper()
		return s.must("git", append([]string{"-C", s.project, "-c", "user.name=Test", "-c", "user.email=test@example.com"}, args...)...)
	}
	s.write("notes.txt", "not for everyone\n")
	git("init", "--quiet")
	git("add", "ferry.nix", "web")
	git("commit", "--quiet", "-m", "first")
	s.write("web/configuration.nix", configuration("not committed"))
	s.deploy()
	if got := s.state().greeting; got != "not committed" {
		t.Errorf("the target greets with %q", got)
	}
	if got := s.onTarget("ls", "-A", "/etc/nixos/current-configuration/source/"); got != "ferry.nix\nweb" {
		t.Errorf("the source has\n%s", got)
	}
	manifest := s.onTarget("cat", "/etc/nixos/current-configuration/ferry.json")
	if revision := strings.TrimSpace(git("rev-parse", "HEAD")); !strings.Contains(manifest, revision) {
		t.Errorf("ferry.json does not name the commit %s:\n%s", revision, manifest)
	}

	// From a subfolder it is the same, bundle and all.
	ferry := func(args ...string) outcome {
		cmd := s.builder.Command(t.Context(), "sh", append([]string{"-c", `cd "$0" && exec ferry "$@"`, filepath.Join(s.project, "web")}, args...)...)
		return s.run(cmd)
	}
	o := ferry("deploy", "--sudo-password-file", s.password)
	o.says(t, "web: nothing to do")
	if o := ferry("build", "-f", "../ferry.nix"); o.out != s.bundle()+"\n" {
		t.Errorf("from below, the bundle is %s", o.out)
	}

	s.write("web/configuration.nix", with(configuration("first"), "  imports = [ ./more.nix ];"))
	s.write("web/more.nix", "{ }\n")
	o = s.ferry("build")
	if o.status != 1 {
		t.Errorf("a file that git does not know: status %d", o.status)
	}
	o.says(t, "ferry: error: web: evaluate: ", "ferry: hint: web/more.nix exists, but git does not know it: git add "+s.project+"/web/more.nix")
	git("add", "--intent-to-add", "web/more.nix")
	s.bundle()
}
