package deploy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestASystemThatSomebodyElsePutThereIsNotReplaced has somebody change the target with NixOS's own commands.
func TestASystemThatSomebodyElsePutThereIsNotReplaced(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	installed := s.State().Runs
	// The first deployment replaces what an installer left: there is nothing to be surprised at.
	s.Deploy()
	s.OnTarget("nix-env", "-p", "/nix/var/nix/profiles/system", "--set", installed)
	s.OnTarget(installed+"/bin/switch-to-configuration", "switch")
	theirs := s.State()
	s.Write("web/configuration.nix", site.Configuration("second"))

	o := s.Ferry("deploy", "--sudo-password-file", s.Password)
	o.Fails(t, 1, "web: connect: the target runs nixos-system-web-", "ferry generations web shows what it has", "--replace-unknown")
	o.Says(t, ", which no deployment of ferry's left there: generation 3 of 20", "; the last deployment was by root@")
	if strings.Contains(o.Errors, "web: ship") {
		t.Error("it was shipped")
	}
	s.Want(s.State(), theirs)
	s.Deploy("--action", "dry-activate").Says(t, "nothing was changed")

	s.Deploy("--replace-unknown").Says(t, "web: done: generation 4, ")
	s.Write("web/configuration.nix", site.Configuration("third"))
	s.Deploy().Says(t, "web: done: generation 5, ")
	if got := s.State(); got.Greeting != "third" {
		t.Errorf("%+v", got)
	}
}

// TestWhatAnotherCheckoutDeployedIsNotReplacedUnlessItIsKnown has two people with clones of one repository.
func TestWhatAnotherCheckoutDeployedIsNotReplacedUnlessItIsKnown(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	git(s, "init", "--quiet", "--initial-branch=main")
	git(s, "add", ".")
	git(s, "commit", "--quiet", "--message=first")
	other := s.In(t)
	other.Project = s.Project + "-clone"
	s.Must("git", "clone", "--quiet", s.Project, other.Project)

	// Each goes on from what the other has, as long as it is in the history.
	s.Deploy()
	other.Write("web/configuration.nix", site.Configuration("other"))
	other.Deploy().Says(t, "web: done: generation 3, ")
	git(other, "commit", "--quiet", "--all", "--message=other")
	revision := git(other, "rev-parse", "HEAD")
	// The same system from a commit: only now is it known what it was deployed from.
	other.Deploy().Says(t, "same system, new configuration kept")
	theirs := s.State()

	s.Write("web/configuration.nix", site.Configuration("mine"))
	deploy := []string{"deploy", "--sudo-password-file", s.Password}
	o := s.Ferry(deploy...)
	o.Fails(t, 1, "web: connect: the target runs nixos-system-web-", "git pull, then run this again", "--replace-unknown")
	o.Says(t, ", deployed by root@", " from revision "+revision[:12]+", which is not in this checkout's history\n")
	s.Want(s.State(), theirs)

	// It is there, and still not in what is deployed.
	git(s, "fetch", "--quiet", other.Project, "main")
	s.Ferry(deploy...).Fails(t, 1, "web: connect: the target runs nixos-system-web-", "git merge "+revision[:12]+" takes it in", "--replace-unknown")
	git(s, "checkout", "--quiet", "web")
	git(s, "merge", "--quiet", "--ff-only", "FETCH_HEAD")
	s.Write("web/configuration.nix", site.Configuration("mine"))
	s.Deploy().Says(t, "web: done: generation 4, ")

	// A test is not committed, and is known all the same.
	git(s, "commit", "--quiet", "--all", "--message=mine")
	s.Write("web/configuration.nix", site.Configuration("tested"))
	git(s, "commit", "--quiet", "--all", "--message=tested")
	s.Deploy("--action", "test")
	git(other, "fetch", "--quiet", "origin")
	git(other, "reset", "--quiet", "--hard", "origin/main~1")
	other.Write("web/configuration.nix", site.Configuration("again"))
	o = other.Ferry(deploy...)
	o.Fails(t, 1, "web: connect: the target runs nixos-system-web-", "git merge", "--replace-unknown")
	o.Says(t, " from revision "+git(s, "rev-parse", "HEAD")[:12]+", which is not")
	s.Reboot()
	other.Deploy().Says(t, "web: done: generation 5, ")
}

// TestDeploymentsAreWrittenDownOnTheTarget reads the journal as somebody who logs in there does.
func TestDeploymentsAreWrittenDownOnTheTarget(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	s.Deploy()
	first := s.State()
	s.Deploy()
	s.Write("web/configuration.nix", site.With(site.Configuration("broken"), `system.activationScripts.broken = "false";`))
	if o := s.Ferry("deploy", "--sudo-password-file", s.Password); o.Status == 0 {
		t.Error("a broken activation went well")
	}
	s.Write("web/configuration.nix", site.Configuration("next"))
	s.Deploy("--action", "boot")
	last := s.State()
	type system struct {
		Current, Profile, Bundle string
		Generation               int
	}
	type entry struct {
		ID, Time, Who, From, Action, Node, Bundle, Toplevel, Version, Outcome, Reason string
		Before, After                                                                 system
	}
	var got []entry
	for line := range strings.Lines(s.OnTarget("su", "alice", "-s", "/bin/sh", "-c", "cat /var/log/ferry/deployments.jsonl")) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.ID == "" || !strings.HasPrefix(e.Time, "20") || !strings.HasPrefix(e.Who, "root@") || e.From == "" || e.Node != "web" || e.Version == "" {
			t.Errorf("%s", line)
		}
		got = append(got, e)
	}
	if len(got) != 3 {
		t.Fatalf("%d entries: %+v", len(got), got)
	}
	states := []system{
		{Current: before.Runs, Profile: before.Profile, Generation: 1},
		{Current: first.Runs, Profile: first.Profile, Generation: 2, Bundle: first.Bundle},
		{Current: first.Runs, Profile: first.Profile, Generation: 2, Bundle: first.Bundle},
		{Current: last.Runs, Profile: last.Profile, Generation: 3, Bundle: last.Bundle},
	}
	for i, want := range []struct{ action, outcome, reason string }{
		{"switch", "committed", ""}, {"switch", "rolled back", "exit status 2"}, {"boot", "installed", ""},
	} {
		e := got[i]
		if e.Action != want.action || e.Outcome != want.outcome || !strings.Contains(e.Reason, want.reason) || (e.Reason == "") != (want.reason == "") ||
			e.Before != states[i] || e.After != states[i+1] {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
	if got[0].Bundle != first.Bundle || got[0].Toplevel != first.Runs {
		t.Errorf("%+v", got[0])
	}
}
