package deploy_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestABundleDoesNotVanishHere tries to delete what was built before it is shipped, as a garbage collection might: it is kept.
func TestABundleDoesNotVanishHere(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Alone: true})
	p := s.Person("deploy")
	p.Sees("web: password for sudo: ")
	roots := s.Builder.Path(filepath.Join(s.Builder.Home(), ".local/state/ferry/built"))
	var bundle string
	site.Until(t, "the bundle is built", func() bool {
		links, _ := filepath.Glob(filepath.Join(roots, "web-*"))
		if len(links) == 1 {
			bundle, _ = os.Readlink(links[0])
		}
		return bundle != ""
	})
	s.Must("rm", "-r", filepath.Join(s.Builder.Home(), ".local/state/ferry"))
	if _, err := s.Builder.Output(t.Context(), "nix-store", "--delete", bundle); err == nil {
		t.Error("the bundle can be deleted while ferry has to do with it")
	}
	p.Types(lab.Password + "\n")
	o := p.Ends()
	o.Says(t, "web: done: generation 2")
	if o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
}

// TestABundleThatVanishesThere takes away what was shipped before it is activated, behind the back of Nix.
func TestABundleThatVanishesThere(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	// The answer to the ship and the next request are this long on their way.
	s.Relayed("alice", lab.RelayOptions{Delay: 800 * time.Millisecond})
	_, ended := s.Background("deploy", "--sudo-password-file", s.Password)
	pending := filepath.Join(s.Target.Root(), "nix/var/nix/gcroots/ferry/pending")
	var bundle string
	site.Until(t, "the bundle is shipped", func() bool {
		bundle, _ = os.Readlink(pending)
		return bundle != ""
	})
	toplevel, err := os.Readlink(filepath.Join(s.Target.Root(), bundle, "profile"))
	if err != nil {
		t.Fatal(err)
	}
	there, away := filepath.Join(s.Target.Root(), toplevel), filepath.Join(s.Target.Root(), "nix/store/away")
	if err := os.Rename(there, away); err != nil {
		t.Fatal(err)
	}
	o := ended()
	o.Says(t, toplevel+"; what this machine has of that is put back", "web: done: generation 2")
	if o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
}
