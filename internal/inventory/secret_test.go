package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// begin is the first line of a PEM file. It is put together here so that no file of ferry itself looks like a key.
func begin(what string) string { return "-----BEGIN " + what + " KEY" + "-----\n" }

func TestPrivateKeysAreRefusedWithTheirFiles(t *testing.T) {
	dir := t.TempDir()
	key := begin("OPENSSH PRIVATE") + "b3BlbnNzaC1rZXktdjEA"
	write(t, dir, map[string]string{
		"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`, "keys/host": key, "odd\nname": key, "own/key.pub": "ssh-ed25519 AAAA",
	})
	e := openError(t, dir, Options{})
	want := `source: private key in keys/host (private key), "odd\nname" (private key): the store is readable for everyone`
	if !strings.HasPrefix(e.Error(), want) || len(e.Hints()) != 2 {
		t.Errorf("got %q with hints %q, want %q", e, e.Hints(), want)
	}
	repository(t, dir)
	git(t, dir, "rm", "--quiet", "--cached", "keys/host", "odd\nname")
	open(t, dir, Options{})
}

// TestVendoredNixpkgsMayHoldItsTestKeys: nixpkgs has keys in its tests, and everyone has them.
func TestVendoredNixpkgsMayHoldItsTestKeys(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ferry.nix": `{ nixpkgs = ./vendor/nixpkgs; nodes = { }; }`,
		"vendor/nixpkgs/nixos/tests/ssh-keys.nix": "''" + begin("OPENSSH PRIVATE") + "b3BlbnNzaC1rZXktdjEA''",
		"vendor/nixpkgs/nixos/default.nix":        "", "vendor/nixpkgs/nixos/lib/eval-config.nix": "",
		"vendor/nixpkgs/pkgs/top-level/all-packages.nix": "",
	})
	open(t, dir, Options{})
}

// TestOnlyNixpkgsOwnPathsAreExempt has an inventory in a checkout of nixpkgs, with keys beside it.
func TestOnlyNixpkgsOwnPathsAreExempt(t *testing.T) {
	key := begin("OPENSSH PRIVATE") + "b3BlbnNzaC1rZXktdjEA"
	for place, want := range map[string]string{
		"ferry.nix":               "host.key (private key), machines/host.key (private key), nixos/host.key (private key), nixos/machines/host.key (private key)",
		"machines/ferry.nix":      "host.key (private key), machines/host.key (private key), nixos/host.key (private key), nixos/machines/host.key (private key)",
		"pkgs/machines/ferry.nix": "host.key (private key), machines/host.key (private key), nixos/host.key (private key), nixos/machines/host.key (private key), pkgs/machines/host.key (private key)",
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{
			place: `{ nixpkgs = ./.; nodes = { }; }`, "nixos/tests/ssh.key": key, "pkgs/x/test.key": key,
			"nixos/default.nix": "", "nixos/lib/eval-config.nix": "", "pkgs/top-level/all-packages.nix": "",
			"host.key": key, "machines/host.key": key, "nixos/host.key": key, "nixos/machines/host.key": key,
		})
		if strings.HasPrefix(place, "pkgs/") {
			write(t, dir, map[string]string{"pkgs/machines/host.key": key})
		}
		repository(t, dir)
		e := openError(t, filepath.Join(dir, filepath.Dir(place)), Options{})
		if !strings.HasPrefix(e.Error(), "source: private key in "+want+": ") {
			t.Errorf("%s: got %q, want %q", place, e, want)
		}
	}
}

// TestWhatEveryoneMayReadIsNotRefused has an inventory that says so of some files.
func TestWhatEveryoneMayReadIsNotRefused(t *testing.T) {
	dir := t.TempDir()
	key := begin("OPENSSH PRIVATE") + "b3BlbnNzaC1rZXktdjEA"
	inventory := func(list string) {
		write(t, dir, map[string]string{"machines/ferry.nix": `{ nixpkgs = 1; nodes = { }; worldReadable = ` + list + `; }`})
	}
	write(t, dir, map[string]string{"tests/keys/a": key, "tests/b": key, "machines/c": key})
	inventory(`[ ../tests ./c ]`)
	repository(t, dir)
	at := filepath.Join(dir, "machines")
	inv, _ := open(t, at, Options{})
	if got := list(t, string(inv.Source.Path)); got["tests/keys/a"] != "file "+key || got["machines/c"] != "file "+key {
		t.Errorf("the source has %v", got)
	}
	for list, want := range map[string]string{
		`[ ../tests/keys ./c ]`: "source: private key in tests/b (private key): ",
		`[ ]`:                   "source: private key in machines/c (private key), tests/b (private key), tests/keys/a (private key): ",
		`import ../tests/b`:     "source: private key in machines/c (private key), tests/b (private key), tests/keys/a (private key): ",
		`[ "c" ]`:               "attribute `worldReadable`: expected a path as element 1",
		`[ /etc ]`:              "attribute `worldReadable`: element 1, /etc, is outside of the source",
		`./c`:                   "attribute `worldReadable`: expected a list of paths",
	} {
		inventory(list)
		if e := openError(t, at, Options{}); !strings.HasPrefix(e.Error(), want) {
			t.Errorf("%s: got %q, want %q", list, e, want)
		}
	}
	inventory(`[ ../tests/keys ]`)
	e := openError(t, at, Options{})
	if !strings.Contains(strings.Join(e.Hints(), "\n"), "worldReadable = [ ./c ];") {
		t.Errorf("hints %q", e.Hints())
	}
}

// TestWhatGitDecryptsIsRefused has files that are encrypted in git's objects and lie open in the work tree.
func TestWhatGitDecryptsIsRefused(t *testing.T) {
	secret, sealed := "password = hunter2\n", "\x00GITCRYPT\x00abcdef"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"git-crypt":                   {map[string]string{".gitattributes": "secrets/** filter=git-crypt diff=git-crypt\n", "secrets/a": secret}, "secrets/a (decrypted by the filter git-crypt)"},
		"with a key of its own":       {map[string]string{".gitattributes": "a filter=git-crypt-ops\n", "a": secret}, "a (decrypted by the filter git-crypt-ops)"},
		"git-agecrypt":                {map[string]string{".gitattributes": "a filter=git-agecrypt\n", "a": secret}, "a (decrypted by the filter git-agecrypt)"},
		"transcrypt":                  {map[string]string{".gitattributes": "a filter=crypt diff=crypt merge=crypt\n", "a": secret}, "a (decrypted by the filter crypt)"},
		"in a folder":                 {map[string]string{"deep/.gitattributes": "* filter=git-crypt\n.gitattributes !filter\n", "deep/a b": secret}, "\"deep/a b\" (decrypted by the filter git-crypt)"},
		"by a macro":                  {map[string]string{".gitattributes": "[attr]sealed filter=git-crypt\na sealed\n", "a": secret}, "a (decrypted by the filter git-crypt)"},
		"by the repository":           {map[string]string{".git/info/attributes": "a filter=git-crypt\n", "a": secret}, "a (decrypted by the filter git-crypt)"},
		"another filter":              {map[string]string{".gitattributes": "a filter=own\n", "a": secret}, "a (decrypted by the filter own)"},
		"locked":                      {map[string]string{".gitattributes": "a filter=git-crypt\n", "a": sealed}, ""},
		"locked by transcrypt":        {map[string]string{".gitattributes": "a filter=crypt\n", "a": "U2FsdGVkX1+abcdefgh\n"}, ""},
		"empty":                       {map[string]string{".gitattributes": "a filter=git-crypt\n", "a": ""}, ""},
		"another file":                {map[string]string{".gitattributes": "b filter=git-crypt\n", "a": secret}, ""},
		"a filter that seals nothing": {map[string]string{".gitattributes": "b filter=nbstripout\n", "b": secret}, ""},
		"allowed":                     {map[string]string{".gitattributes": "open/* filter=git-crypt\n", "open/a": secret}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"ferry.nix": `{ nixpkgs = 1; nodes = { }; worldReadable = [ ./open ]; }`})
			write(t, dir, map[string]string{"a": sealed})
			repository(t, dir)
			write(t, dir, c.files)
			git(t, dir, "add", "--intent-to-add", "--all")
			if c.want == "" {
				open(t, dir, Options{})
				return
			}
			if e := openError(t, dir, Options{}); !strings.HasPrefix(e.Error(), "source: private material in "+c.want+": ") {
				t.Errorf("got %q, want %q", e, c.want)
			}
		})
	}
	t.Run("in a submodule", func(t *testing.T) {
		module, dir := t.TempDir(), t.TempDir()
		write(t, module, map[string]string{"a": sealed, ".gitattributes": "a filter=git-crypt\n"})
		repository(t, module)
		write(t, dir, map[string]string{"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`})
		repository(t, dir)
		git(t, dir, "submodule", "--quiet", "add", module, "sub")
		open(t, dir, Options{})
		write(t, dir, map[string]string{"sub/a": secret})
		if e := openError(t, dir, Options{}); !strings.Contains(e.Error(), "sub/a (decrypted by the filter git-crypt)") {
			t.Errorf("got %q", e)
		}
	})
}

// TestPointersAreNoted: what stands for a file is deployed as it is, and that is hardly what is wanted.
func TestPointersAreNoted(t *testing.T) {
	dir := t.TempDir()
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("4d", 32) + "\nsize 12345\n"
	write(t, dir, map[string]string{
		"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`, "logo.png": pointer, "big one": pointer, "annexed": "/annex/objects/SHA256E-s12--abc.png\n",
		"README": "An LFS pointer begins with version https://git-lfs.github.com/spec/v1\n",
	})
	if err := os.Symlink(".git/annex/objects/aa/bb/SHA256E-s12--abc/SHA256E-s12--abc", filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	repository(t, dir)
	inv, _ := open(t, dir, Options{})
	var e *Error
	if _, err := inv.locateFile(t.Context(), string(inv.Source.Path)+"/linked"); !errors.As(err, &e) || !strings.HasPrefix(e.Hints()[0], "git annex get linked") {
		t.Errorf("got %v", err)
	}
	// The second time it is in the store.
	for range 2 {
		_, notes := open(t, dir, Options{})
		want := "\"big one\", logo.png: not the content but a pointer of git LFS is deployed; git lfs pull fetches the content\n" +
			"linked, annexed: not the content but a link of git-annex is deployed; git annex get linked && git annex unlock linked puts the content in its place"
		if notes.all() != want {
			t.Errorf("got notes %q, want %q", notes.all(), want)
		}
	}
}
