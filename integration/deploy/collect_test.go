package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestGarbageIsCollectedHereAllTheTime has Nix collect garbage on the building machine, again and again, while changes are deployed: of
// the inventory as it is, of a node with a source of its own, and with a pin that is a folder. A nix-build in between is the control.
func TestGarbageIsCollectedHereAllTheTime(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			collectWhileDeploying(t, site.New(t, site.Options{Alone: true, Builder: lab.BuilderOptions{Suite: suite}}))
		})
	}
}

func collectWhileDeploying(t *testing.T, s *site.Site) {
	s.Must("nix-store", "--realise", s.Nixpkgs, "--add-root", s.Project+"-root", "--indirect")
	s.Must("cp", "-r", s.Nixpkgs+"/.", s.Project+"-nixpkgs")
	s.Must("touch", s.Project+"-collecting")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	collector := s.Builder.Command(ctx, "sh", "-c",
		`while [ -e "$1" ]; do nix-store --gc >>"$1-log" 2>&1 || exit 1; echo collected >>"$1-log"; done`, "sh", s.Project+"-collecting")
	if err := collector.Start(); err != nil {
		t.Fatal(err)
	}
	collections := func() int { return strings.Count(s.Must("cat", s.Project+"-collecting-log"), "collected\n") }
	site.Until(t, "garbage is collected", func() bool {
		return s.Must("sh", "-c", `[ ! -e "$1" ] || echo there`, "sh", s.Project+"-collecting-log") != ""
	})
	before := collections()
	address := "alice@" + s.Target.Name()
	for i, node := range []string{
		s.Node(address), s.Node(address, "source = [ ./web ];"), s.Node(address, "nixpkgs = "+s.Project+"-nixpkgs;"), s.Node(address, "impure = true;"),
	} {
		s.Inventory(node)
		greeting := fmt.Sprintf("number %d", i)
		s.Write("web/configuration.nix", site.Configuration(greeting))
		s.Deploy().Says(t, ": done: generation ")
		if got := s.State().Greeting; got != greeting {
			t.Errorf("the target greets with %q, want %q", got, greeting)
		}
		s.Must("nix-build", "--no-out-link", s.Nixpkgs+"/nixos", "--attr", "system", "--arg", "configuration",
			"{ networking.hostName = \"control\"; environment.etc.control.text = \""+greeting+"\"; }")
	}
	if n := collections() - before; n < 4 {
		t.Errorf("garbage was collected %d times", n)
	}
	s.Must("rm", s.Project+"-collecting")
	if err := collector.Wait(); err != nil {
		t.Error(err)
	}
}
