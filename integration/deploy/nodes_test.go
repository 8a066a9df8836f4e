package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestNodesAreListedAndCompleted has an inventory with several nodes, of which nothing is evaluated.
func TestNodesAreListedAndCompleted(t *testing.T) {
	t.Parallel()
	w := site.WorkshopFor(t, lab.BuilderOptions{}, false)
	s := &site.Site{T: t, Builder: w.Builder, Nixpkgs: w.Nixpkgs, Project: w.NewProject()}
	s.Write("ferry.nix", `{
  nixpkgs = throw "the pin was looked at";
  nodes.web1 = { configuration = ./broken.nix; target = "alice@web1.example.org"; tags = [ "public" "berlin" ]; };
  nodes.web2 = { configuration = ./broken.nix; };
  nodes.pi = { configuration = ./broken.nix; system = "aarch64-linux"; };
}
`)
	s.Write("broken.nix", "a syntax error")
	o := s.Ferry("nodes")
	want := `NODE  SYSTEM         TARGET                  TAGS
pi    aarch64-linux  pi
web1  x86_64-linux   alice@web1.example.org  public berlin
web2  x86_64-linux   web2
`
	got := ""
	for line := range strings.Lines(o.Out) {
		got += strings.TrimRight(line, " \n") + "\n"
	}
	if o.Status != 0 || got != want {
		t.Errorf("ferry nodes: status %d\n%swant\n%s", o.Status, o.Out, want)
	}
	for typed, want := range map[string][]string{
		"w":   {"web1\talice@web1.example.org", "web2\tweb2"},
		"":    {"pi\tpi", "web1\talice@web1.example.org", "web2\tweb2"},
		"pi":  {"pi\tpi"},
		"xyz": nil,
	} {
		for _, command := range []string{"deploy", "build", "by-hand", "generations"} {
			o := s.Ferry("__complete", command, typed)
			lines := strings.Split(strings.TrimSuffix(o.Out, "\n"), "\n")
			// The last line tells the shell not to complete names of files.
			if got := lines[:len(lines)-1]; o.Status != 0 || strings.Join(got, "\n") != strings.Join(want, "\n") || lines[len(lines)-1] != ":4" {
				t.Errorf("%s %s completes to %q, status %d, want %q", command, typed, lines, o.Status, want)
			}
		}
	}
	if o := s.Ferry("__complete", "deploy", "--action", ""); !strings.HasPrefix(o.Out, "switch\nboot\ntest\ndry-activate\n") {
		t.Errorf("--action completes to %q", o.Out)
	}
}
