package see_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestTheSameBundleIsMadeByHand writes the by-hand folder, builds it without ferry, edits it, and does not write over it.
func TestTheSameBundleIsMadeByHand(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true})
	s.Must("mkdir", "-p", s.Project)
	s.Write("run.sh", "#!/bin/sh\n")
	s.Must("sh", "-c", "cd "+s.Project+" && chmod 755 run.sh && ln -s run.sh link && mkdir -p empty/folder")
	bundle := s.Bundle()
	// Beside the project: it would be a part of the source.
	dir := s.Project + "-by-hand"
	o := s.Ferry("abandon", "--write", dir, "web")
	if o.Status != 0 || o.Out != bundle+"\n" {
		t.Fatalf("status %d, not %s", o.Status, bundle)
	}
	if got := strings.TrimSpace(s.Must("nix-build", "--no-out-link", dir)); got != bundle {
		t.Errorf("by hand it is %s, not %s", got, bundle)
	}
	s.Ferry("abandon", "--write", dir, "web").Fails(t, 1, "web: build: "+dir+" is not empty, and nothing is written over", "name a folder that is not there yet")
	s.Must("sh", "-c", "sed -i 's/first/edited/' "+dir+"/source/web/configuration.nix")
	if got := strings.TrimSpace(s.Must("nix-build", "--no-out-link", dir)); got == bundle || !strings.HasSuffix(got, "-ferry-web") {
		t.Errorf("edited it is %s", got)
	}
}

// TestAPinInTheSourceIsAbandonedToo has nixpkgs as a part of the project.
func TestAPinInTheSourceIsAbandonedToo(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true})
	s.Must("cp", "-R", s.Nixpkgs, s.Project+"/pinned")
	s.Must("chmod", "-R", "u+w", s.Project+"/pinned")
	s.Write("ferry.nix", "{\n  nixpkgs = ./pinned;\n  nodes.web = {\n"+s.Node("local")+"  };\n}\n")
	o := s.Ferry("abandon", "--write", s.Project+"-by-hand")
	if o.Status != 0 || !strings.HasSuffix(o.Out, "-ferry-web\n") {
		t.Errorf("status %d", o.Status)
	}
}
