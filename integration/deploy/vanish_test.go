package deploy_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/lab"
)

// TestABundleThatVanishesHere deletes what was built before it is shipped, as a garbage collection might.
func TestABundleThatVanishesHere(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{alone: true})
	before := s.state()
	p := s.person("deploy")
	p.sees("web: password for sudo: ")
	roots := s.builder.Path(filepath.Join(s.builder.Home(), ".local/state/ferry/built"))
	var bundle string
	until(t, "the bundle is built", func() bool {
		links, _ := filepath.Glob(filepath.Join(roots, "web-*"))
		if len(links) == 1 {
			bundle, _ = os.Readlink(links[0])
		}
		return bundle != ""
	})
	// Nix puts the root there at the end of the build, and ferry looks at it a moment later: nothing shows from outside that it has.
	time.Sleep(3 * time.Second)
	s.must("rm", "-r", filepath.Join(s.builder.Home(), ".local/state/ferry"))
	until(t, "the bundle can be deleted", func() bool {
		_, err := s.builder.Output(t.Context(), "nix-store", "--delete", bundle)
		return err == nil
	})
	p.types(lab.Password + "\n")
	o := p.ends()
	o.says(t, "ferry: error: web: ship: "+bundle+" is not in this machine's store any more", "ferry: hint: run the same command again: what is missing here is built again")
	if o.status != 1 {
		t.Errorf("status %d", o.status)
	}
	s.want(s.state(), before)
	s.deploy().says(t, "web: done: generation 2")
}

// TestABundleThatVanishesThere takes away what was shipped before it is activated; Nix itself refuses to.
func TestABundleThatVanishesThere(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	// The answer to the ship and the next request are this long on their way.
	s.relayed("alice", lab.RelayOptions{Delay: 800 * time.Millisecond})
	_, ended := s.background("deploy", "--sudo-password-file", s.password)
	pending := filepath.Join(s.target.Root(), "nix/var/nix/gcroots/ferry/pending")
	var bundle string
	until(t, "the bundle is shipped", func() bool {
		bundle, _ = os.Readlink(pending)
		return bundle != ""
	})
	toplevel, err := os.Readlink(filepath.Join(s.target.Root(), bundle, "profile"))
	if err != nil {
		t.Fatal(err)
	}
	there, away := filepath.Join(s.target.Root(), toplevel), filepath.Join(s.target.Root(), "nix/store/away")
	if err := os.Rename(there, away); err != nil {
		t.Fatal(err)
	}
	ended().fails(t, 1, "web: activate: "+toplevel+" is not on the target (any more)", "run the same command again")
	s.want(s.state(), before)
	if err := os.Rename(away, there); err != nil {
		t.Fatal(err)
	}
	s.inventory(s.node("alice@" + s.target.Name()))
	s.deploy().says(t, "web: done: generation 2")
}
