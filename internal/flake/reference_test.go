package flake

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestReferencesAreReadAsNixReadsThem locks what a reference on the command line means.
func TestReferencesAreReadAsNixReadsThem(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, map[string]string{
		"git/flake.nix": "", "git/.git/HEAD": "", "git/below/deeper/x": "", "git/nixos/flake.nix": "", "plain/flake.nix": "", "plain/sub/flake.nix": "",
		"plain/with space/flake.nix": "",
	})
	git, plain := filepath.Join(root, "git"), filepath.Join(root, "plain")
	for text, c := range map[string]struct {
		dir  string
		want Reference
	}{
		".#pi":                        {git, Reference{URL: "git+file://" + git, Folder: git, Node: "pi"}},
		"#pi":                         {git, Reference{URL: "git+file://" + git, Folder: git, Node: "pi"}},
		".":                           {git + "/below/deeper", Reference{URL: "git+file://" + git, Folder: git}},
		"./nixos#pi":                  {git, Reference{URL: "git+file://" + git + "?dir=nixos", Folder: git + "/nixos", Node: "pi"}},
		".?dir=nixos#pi":              {git, Reference{URL: "git+file://" + git + "?dir=nixos", Folder: git + "/nixos", Node: "pi"}},
		".?submodules=1#pi":           {git, Reference{URL: "git+file://" + git + "?submodules=1", Folder: git, Node: "pi"}},
		"..":                          {git + "/below/deeper", Reference{URL: "git+file://" + git, Folder: git}},
		git + "/flake.nix#pi":         {"/", Reference{URL: "git+file://" + git, Folder: git, Node: "pi"}},
		"./plain#core01.example.org":  {root, Reference{URL: "path:" + plain, Folder: plain, Node: "core01.example.org"}},
		"path:./git#pi":               {root, Reference{URL: "path:" + git, Folder: git, Node: "pi"}},
		"path:" + plain + "?dir=sub":  {"/", Reference{URL: "path:" + plain + "?dir=sub", Folder: plain + "/sub"}},
		"./plain?dir=sub":             {root, Reference{URL: "path:" + plain + "?dir=sub", Folder: plain + "/sub"}},
		"./with space":                {plain, Reference{URL: "path:" + plain + "/with%20space", Folder: plain + "/with space"}},
		".#nixosConfigurations.pi":    {git, Reference{URL: "git+file://" + git, Folder: git, Node: "pi"}},
		`.#nixosConfigurations."a.b"`: {git, Reference{URL: "git+file://" + git, Folder: git, Node: "a.b"}},
		"github:o/r/main#pi":          {git, Reference{URL: "github:o/r/main", Node: "pi"}},
		"git+ssh://git@h/r?dir=x#pi":  {git, Reference{URL: "git+ssh://git@h/r?dir=x", Node: "pi"}},
		"git+file://" + git + "#pi":   {"/", Reference{URL: "git+file://" + git, Folder: git, Node: "pi"}},
		"config#pi":                   {git, Reference{URL: "config", Node: "pi"}},
	} {
		t.Run(text, func(t *testing.T) {
			got, err := Parse(text, c.dir)
			if err != nil || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
			if !IsReference(text) {
				t.Error("it is not told from a name")
			}
		})
	}
	for _, word := range []string{"pi", "web*", "@web", "!web3", "alice@host", "ssh://alice@host:22", "core01.example.org", "local"} {
		if IsReference(word) {
			t.Errorf("%s is taken for a reference", word)
		}
	}
	var none *NoneError
	if _, err := Parse(".#pi", root); !errors.As(err, &none) {
		t.Errorf("a folder without flake: %v", err)
	}
	if _, err := Parse("path:.#pi", git+"/below"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("path: is searched upward: %v", err)
	}
}
