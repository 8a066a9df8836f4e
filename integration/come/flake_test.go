package come_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// flakes are the options that enable flakes for one command.
const flakes = "--extra-experimental-features 'nix-command flakes'"

// flakeSite is a site whose project is a flake in git with the node web. Its inputs are nixpkgs, data, which web uses, and unused.
func flakeSite(t *testing.T, o site.Options) *site.Site {
	t.Helper()
	s := site.New(t, o)
	s.Must("rm", filepath.Join(s.Project, "ferry.nix"))
	for name, text := range map[string]string{"data/file": "from an input\n", "unused/flake.nix": "{ outputs = { self }: { }; }\n"} {
		if err := s.Builder.WriteFile(s.Project+"-inputs/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.Write("flake.nix", fmt.Sprintf(`{
  inputs.nixpkgs.url = "path:%s";
  inputs.data = { url = "path:%s-inputs/data"; flake = false; };
  inputs.unused.url = "path:%s-inputs/unused";
  outputs = { self, nixpkgs, data, unused }: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      system = %q;
      modules = [
        ./web/configuration.nix
        { environment.etc."from-input".source = "${data}/file"; system.configurationRevision = self.rev or null; }
      ];
    };
  };
}
`, s.Nixpkgs, s.Project, s.Project, s.Target.System()))
	inProject(s, "git init --quiet && git add --all && nix "+flakes+" flake lock && git commit --quiet --all --message=first")
	return s
}

// inProject runs a line of sh in the project.
func inProject(s *site.Site, line string) string {
	s.T.Helper()
	return strings.TrimSpace(s.Must("sh", "-euc", `cd "$0"; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org; `+line, s.Project))
}

// deployFlake deploys the node web with more arguments.
func deployFlake(s *site.Site, more ...string) site.Outcome {
	s.T.Helper()
	return s.Deploy(append([]string{"--flake", ".#web", "alice@" + s.Target.Name()}, more...)...)
}

// TestAFlakeIsDeployedAsItIs deploys a flake that knows nothing of ferry, sees that the second time there is nothing to do, and that the
// target goes on from there without ferry, network and git, whatever its version of Nix.
func TestAFlakeIsDeployedAsItIs(t *testing.T) {
	suites := []string{"bookworm", "trixie"}
	if *matrix {
		suites = append(suites, "sid")
	}
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			s := flakeSite(t, site.Options{Target: lab.Options{Suite: suite}})
			before := inProject(s, "git status --porcelain; git rev-parse HEAD")
			deployFlake(s)
			deployed := s.State()
			if want := inProject(s, "nix "+flakes+" eval --raw .#nixosConfigurations.web.config.system.build.toplevel"); deployed.Runs != want || deployed.Boots != want {
				t.Errorf("%+v, and Nix makes %s", deployed, want)
			}
			if after := inProject(s, "git status --porcelain; git rev-parse HEAD"); after != before {
				t.Errorf("the work tree has changed: %s", after)
			}
			if o := deployFlake(s); !strings.Contains(o.Errors, "web: nothing to do") {
				t.Error("the second deployment had something to do")
			}
			const place = "/etc/nixos/current-configuration"
			for name, want := range map[string]bool{"data": true, "nixpkgs": true, "unused": false} {
				if is := s.OnTarget("sh", "-c", "test -e "+place+"/inputs/"+name+" && echo yes || true") == "yes"; is != want {
					t.Errorf("input %s: shipped is %v, want %v", name, is, want)
				}
			}
			unused := inProject(s, "nix "+flakes+" eval --raw --impure --expr '(builtins.fetchTree { type = \"path\"; path = \""+s.Project+"-inputs/unused\"; }).outPath'")
			if s.OnTarget("sh", "-c", "test -e "+unused+" && echo yes || true") != "" {
				t.Errorf("%s is on the target", unused)
			}
			for _, args := range [][]string{{"verify"}, {"verify", "--here"}} {
				if o := s.Ferry(append(args, "--flake", ".#web", "alice@"+s.Target.Name(), "--sudo-password-file", s.Password)...); o.Status != 0 || !strings.Contains(o.Out, "web: the same") {
					t.Errorf("%v: status %d", args, o.Status)
				}
			}
			leaves(s, deployed.Runs)
		})
	}
}

// leaves sees that the target evaluates its bundle to toplevel without network, git and a cache, as a flake and without flakes, and
// that nothing would be built.
func leaves(s *site.Site, toplevel string) {
	s.T.Helper()
	s.OnTarget("sh", "-c", "mv /usr/bin/git /usr/bin/git-away")
	alone := func(line string) string {
		s.T.Helper()
		return s.OnTarget("unshare", "--net", "sh", "-euc", "export HOME=$(mktemp -d) NIX_REMOTE=local; cd /etc/nixos/current-configuration; "+line)
	}
	if got := alone("nix " + flakes + " eval --raw .#nixosConfigurations.web.config.system.build.toplevel"); got != toplevel {
		s.T.Errorf("the bundle's flake is %s, want %s", got, toplevel)
	}
	if said := alone("nix " + flakes + " build --no-link --dry-run .#nixosConfigurations.web.config.system.build.toplevel 2>&1"); strings.Contains(said, "built") {
		s.T.Errorf("the bundle's flake would build: %s", said)
	}
	if got := alone("nix-build --no-out-link -A web.config.system.build.toplevel"); got != toplevel {
		s.T.Errorf("the bundle's default.nix makes %s, want %s", got, toplevel)
	}
}

// TestALockThatTheBuildersNixRefuses deploys a flake whose nixpkgs is locked as a tarball, in the way of a Nix that is newer than the
// builder's, and that nobody can fetch. The target's own Nix, as old, goes on from the bundle.
func TestALockThatTheBuildersNixRefuses(t *testing.T) {
	t.Parallel()
	s := flakeSite(t, site.Options{})
	const url = "https://nowhere.invalid/nixpkgs.tar.gz"
	inProject(s, `sed -i 's|inputs.nixpkgs.url = "[^"]*"|inputs.nixpkgs.url = "`+url+`"|' flake.nix
		sed -i '\|"path": "'`+s.Nixpkgs+`'"|,/}/{s|"path": "[^"]*"|"url": "`+url+`"|; s|"type": "path"|"type": "tarball"|}' flake.lock
		git commit --quiet --all --message=tarball`)
	if said := inProject(s, "nix "+flakes+" flake metadata 2>&1 || true"); !strings.Contains(said, "lastModified") {
		t.Fatalf("Nix takes the lock: %s", said)
	}
	deployFlake(s)
	if o := deployFlake(s); !strings.Contains(o.Errors, "web: nothing to do") {
		t.Error("the second deployment had something to do")
	}
	leaves(s, s.State().Runs)
}

// TestEveryCommandTakesANodeOfAFlake goes through a day with a flake: what would change, a change, what was deployed, and back.
func TestEveryCommandTakesANodeOfAFlake(t *testing.T) {
	t.Parallel()
	s := flakeSite(t, site.Options{})
	deployFlake(s)
	first := s.State()
	// The target by ssh's configuration, from below the flake.
	inProject(s, "{ echo Host web; echo User alice; ssh -G alice@"+s.Target.Name()+
		" | grep -E '^(hostname|port|identityfile|userknownhostsfile|hostkeyalias) '; } >ssh")
	ferry := func(status int, want string, args ...string) site.Outcome {
		t.Helper()
		for i, arg := range args {
			if arg == "@" {
				args = append(args[:i:i], append([]string{"--ssh-config", "../ssh", "--sudo-password-file", s.Password}, args[i+1:]...)...)
			}
		}
		o := s.Run(s.Builder.Command(t.Context(), "sh", append([]string{"-c", `cd "$0/web" && exec ferry "$@"`, s.Project}, args...)...))
		if o.Status != status || !strings.Contains(o.Out+o.Errors, want) {
			t.Errorf("ferry %s: status %d, want %d and %q", strings.Join(args, " "), o.Status, status, want)
		}
		return o
	}
	ferry(0, "web: nothing to do", "deploy", "@", "web")
	s.Write("web/configuration.nix", site.Configuration("second"))
	ferry(0, "greeter.service", "plan", "@", "web")
	ferry(0, "greeting", "why-build", "web")
	ferry(0, "nix-store --realise", "by-hand", "--ssh-config", "../ssh", "web")
	ferry(0, "done: generation", "deploy", "@", "--yes", "web")
	second := s.State()
	if first.Runs == second.Runs {
		t.Error("the change was not deployed")
	}
	ferry(0, "web", "status", "@", "web")
	ferry(0, `-  environment.etc."greeting".text = "first"`, "diff", "--source", "@", "web", "2")
	ferry(0, "hello", "exec", "@", "web", "--", "echo", "hello")
	ferry(0, "web: the same", "verify", "@", "web")
	ferry(0, "", "check", "@", "web")
	ferry(0, "", "rollback", "@", "web")
	if back := s.State(); back.Runs != first.Runs {
		t.Errorf("rolled back to %s, want %s", back.Runs, first.Runs)
	}
}
