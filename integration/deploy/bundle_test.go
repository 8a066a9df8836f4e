package deploy_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestTheBundleHoldsWhatADeploymentIs looks at the one store path that is shipped.
func TestTheBundleHoldsWhatADeploymentIs(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true})
	bundle := s.Bundle()
	if !strings.HasSuffix(bundle, "-ferry-web") {
		t.Errorf("the bundle is called %s", bundle)
	}
	if got, want := s.Must("ls", bundle), "configuration.nix\nferry.json\nnixos-rebuild-switch\nnixpkgs\nprofile\nsource\n"; got != want {
		t.Errorf("it holds\n%swant\n%s", got, want)
	}
	source := strings.TrimSpace(s.Must("readlink", bundle+"/source"))
	toplevel := s.Toplevel(bundle)
	for link, want := range map[string]string{
		"nixpkgs":           s.Nixpkgs,
		"configuration.nix": source + "/web/configuration.nix",
	} {
		if got := strings.TrimSpace(s.Must("readlink", bundle+"/"+link)); got != want {
			t.Errorf("%s leads to %s, want %s", link, got, want)
		}
	}
	if got := s.Must("cat", source+"/ferry.nix", bundle+"/configuration.nix"); got != s.Must("cat", s.Project+"/ferry.nix", s.Project+"/web/configuration.nix") {
		t.Errorf("the source is not the project:\n%s", got)
	}
	if !strings.Contains(toplevel, "-nixos-system-web-") {
		t.Errorf("the profile is %s", toplevel)
	}
	s.Must("test", "-x", bundle+"/nixos-rebuild-switch")

	var manifest map[string]any
	if err := json.Unmarshal([]byte(s.Must("cat", bundle+"/ferry.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"node": "web", "system": "x86_64-linux", "source": source, "profile": toplevel, "nixpkgs": s.Nixpkgs,
		"configuration": source + "/web/configuration.nix", "nixpkgsVersion": "24.05pre-git",
	} {
		if manifest[key] != want {
			t.Errorf("ferry.json says that %s is %v, want %v", key, manifest[key], want)
		}
	}
	if version, _ := manifest["ferryVersion"].(string); version == "" || !strings.HasPrefix(s.Ferry("version").Out, "ferry "+version) {
		t.Errorf("ferry.json says that the version of ferry is %v", manifest["ferryVersion"])
	}
	for key := range manifest {
		if strings.Contains(strings.ToLower(key), "time") || strings.Contains(strings.ToLower(key), "user") {
			t.Errorf("ferry.json has %s: equal inputs would not give the equal path", key)
		}
	}
}

// TestBuildPrintsThePathAndKeepsIt is `ferry build`: what scripts read, and what keeps the bundle.
func TestBuildPrintsThePathAndKeepsIt(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true})
	// Nobody else's bundle is the same, nor keeps it.
	s.Write("web/configuration.nix", site.Configuration(s.Project))
	kept := func(bundle, root string) bool {
		return strings.Contains(s.Must("nix-store", "--query", "--roots", bundle), root)
	}
	state := filepath.Join(s.Builder.Home(), ".local/state/ferry/")
	first := s.Ferry("build", "web")
	bundle := strings.TrimSuffix(first.Out, "\n")
	if first.Status != 0 || strings.ContainsAny(bundle, "\n ") || !strings.HasPrefix(bundle, "/nix/store/") {
		t.Fatalf("ferry build: status %d, output %q", first.Status, first.Out)
	}
	if !kept(bundle, state) {
		t.Error("the bundle is not kept")
	}
	if again := s.Ferry("build", "--verbose"); again.Out != first.Out {
		t.Errorf("again: %q", again.Out)
	}
	link := s.Project + "/../" + filepath.Base(s.Project) + "-result"
	if linked := s.Ferry("build", "-o", link); linked.Out != first.Out {
		t.Errorf("with a link: %q", linked.Out)
	}
	if got := strings.TrimSpace(s.Must("readlink", "-f", link)); got != bundle {
		t.Errorf("the link leads to %s", got)
	}
	if !kept(bundle, filepath.Clean(link)) {
		t.Error("the link does not keep the bundle")
	}

	s.Write("web/configuration.nix", site.Configuration(s.Project+" again"))
	second := s.Bundle()
	if !kept(second, state) || kept(bundle, state) {
		t.Error("the node's last bundle is not the one that is kept")
	}
	if !kept(bundle, filepath.Clean(link)) {
		t.Error("the link does not keep the bundle any more")
	}
}

// TestEqualInputsGiveTheEqualBundle builds one project on machines that have nothing in common, not even their Nix.
func TestEqualInputsGiveTheEqualBundle(t *testing.T) {
	t.Parallel()
	one := site.New(t, site.Options{Bare: true, Target: lab.Options{NoSystemd: true}})
	want := one.Bundle()
	for name, o := range map[string]struct {
		builder lab.BuilderOptions
		alone   bool
	}{
		"another machine":                 {lab.BuilderOptions{}, true},
		"another version of Nix":          {lab.BuilderOptions{Suite: "trixie"}, false},
		"a user who is not root, builder": {lab.BuilderOptions{Plain: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := site.WorkshopFor(t, o.builder, o.alone)
			other := &site.Site{T: t, Builder: w.Builder, Target: one.Target, Nixpkgs: w.Nixpkgs, Project: w.NewProject()}
			for _, file := range []string{"ferry.nix", "web/configuration.nix"} {
				other.Write(file, one.Must("cat", one.Project+"/"+file))
			}
			if got := other.Bundle(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// TestAfterADeploymentPlainNixOSGoesOn asks the target's own Nix for the system that `ferry abandon` leads to.
func TestAfterADeploymentPlainNixOSGoesOn(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Deploy()
	text := s.Ferry("abandon").Out
	var search []string
	for word := range strings.FieldsSeq(text) {
		if strings.HasPrefix(word, "nixpkgs=") || strings.HasPrefix(word, "nixos-config=") {
			search = append(search, "-I", word)
			_, path, _ := strings.Cut(word, "=")
			s.OnTarget("test", "-e", path)
		}
	}
	if len(search) != 4 {
		t.Fatalf("ferry abandon says\n%s", text)
	}
	// The target may not build anything: what it would have to build is an error.
	built := s.OnTarget(append([]string{"nix-build", "--no-out-link", "<nixpkgs/nixos>", "-A", "system"}, search...)...)
	if runs := s.State().Runs; built != runs {
		t.Errorf("plain Nix makes %s, the target runs %s", built, runs)
	}
	copied := text[strings.LastIndex(text, "\ncp ")+1:]
	s.OnTarget("sh", "-euc", "cd /home/alice && "+copied+"test -w source/ferry.nix")
}
