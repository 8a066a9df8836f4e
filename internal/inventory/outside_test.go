package inventory

import (
	"crypto/sha256"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhatAnImpureEvaluationReadsOutsideIsLookedAt has secrets beside the source, which a configuration copies to the store in each way.
func TestWhatAnImpureEvaluationReadsOutsideIsLookedAt(t *testing.T) {
	elsewhere := t.TempDir()
	key := begin("OPENSSH PRIVATE") + "b3BlbnNzaC1rZXktdjEA" + fmt.Sprintf("%x\n", sha256.Sum256([]byte(elsewhere)))
	write(t, elsewhere, map[string]string{"id": key, "folder/deep/id": key, "open": "nothing\n", "pinned.key": key})
	for what, c := range map[string]struct{ text, want string }{
		"a file":                     {`"${` + elsewhere + `/id}"`, "-id (private key)"},
		"a folder":                   {`"${` + elsewhere + `/folder}"`, "-folder/deep/id (private key)"},
		"its text":                   {`builtins.readFile ` + elsewhere + `/id`, ".drv (private key)"},
		"a text that becomes a file": {`"${builtins.toFile "x" (builtins.readFile ` + elsewhere + `/id)}"`, "-x (private key)"},
		"nothing of it":              {`"${` + elsewhere + `/open}"`, ""},
		"a path in quotes":           {`"` + elsewhere + `/id"`, ""},
	} {
		t.Run(what, func(t *testing.T) {
			dir := configured(t, `"`+pinPath(t)+`"`, "impure = true;", `{ text = `+c.text+`; }`)
			inv, _ := open(t, dir, Options{})
			node, err := inv.Node("a")
			if err != nil {
				t.Fatal(err)
			}
			_, err = inv.Evaluate(t.Context(), node, nil, nil)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	t.Run("a file of the pin", func(t *testing.T) {
		inv, _ := open(t, configured(t, `"`+pinPath(t)+`"`, "", `{ text = "x"; }`), Options{})
		o := outside{ctx: t.Context(), pin: inv.Source.Path}
		added, _, err := inv.client.AddTree(t.Context(), filepath.Join(elsewhere, "pinned.key"))
		if err != nil || o.inPin(added) {
			t.Errorf("%s is taken for one of the pin's (%v)", added, err)
		}
		if o.pin, _, err = inv.client.AddTree(t.Context(), elsewhere); err != nil || !o.inPin(added) {
			t.Errorf("%s is not taken for one of the pin's (%v)", added, err)
		}
	})
}

// TestAPinThatNixCopiesIsLookedAt has a key in a tree that an impure pin copies whole, and one in what is nixpkgs' own.
func TestAPinThatNixCopiesIsLookedAt(t *testing.T) {
	for name, want := range map[string]string{"own/id": "/own/id (private key)", "nixos/tests/id": ""} {
		t.Run(name, func(t *testing.T) {
			elsewhere := filepath.Join(t.TempDir(), "nixpkgs")
			if out, err := exec.Command("cp", "-R", pinPath(t), elsewhere).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if out, err := exec.Command("chmod", "-R", "u+w", elsewhere).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			write(t, elsewhere, map[string]string{
				name: begin("OPENSSH PRIVATE") + "b3BlbnNzaC1rZXktdjEA" + fmt.Sprintf("%x\n", sha256.Sum256([]byte(elsewhere))),
				// By these it is known for nixpkgs.
				"nixos/lib/eval-config.nix": "{ }", "pkgs/top-level/all-packages.nix": "{ }",
			})
			inv, _ := open(t, configured(t, `"${`+elsewhere+`}"`, "", `{ text = "x"; }`), Options{})
			node, err := inv.Node("a")
			if err != nil {
				t.Fatal(err)
			}
			_, err = inv.Evaluate(t.Context(), node, nil, nil)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}
