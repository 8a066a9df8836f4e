package inventory

import (
	"strings"
	"testing"
)

// begin is the first line of a PEM file. It is put together here so that no file of ferry itself looks like a key.
func begin(what string) string { return "-----BEGIN " + what + " KEY" + "-----\n" }

func TestPrivateKeysAreRecognised(t *testing.T) {
	base64 := strings.Repeat("QUJD", 24)
	for title, c := range map[string]struct{ text, want string }{
		"OpenSSH":               {begin("OPENSSH PRIVATE") + "b3BlbnNzaC1rZXktdjEA", "private key"},
		"PKCS 8":                {begin("PRIVATE") + "MC4CAQAw", "private key"},
		"RSA":                   {begin("RSA PRIVATE") + "MIIEowIBAAKCAQEA", "private key"},
		"EC with Windows lines": {strings.ReplaceAll(begin("EC PRIVATE")+"MHcCAQEE\n", "\n", "\r\n"), "private key"},
		"encrypted":             {begin("RSA PRIVATE") + "Proc-Type: 4,ENCRYPTED\n", "private key"},
		"PGP":                   {"-----BEGIN PGP PRIVATE " + "KEY BLOCK-----\n\nlQOYBF", "private key"},
		"SSH2":                  {"---- BEGIN SSH2 ENCRYPTED PRIVATE " + "KEY ----\nComment: x", "private key"},
		"in Nix":                {"{ key = ''\n    " + begin("OPENSSH PRIVATE") + "    b3BlbnNzaC1rZXktdjEA\n''; }", "private key"},
		"in JSON":               {`{"key":"` + strings.TrimSuffix(begin("PRIVATE"), "\n") + `\nMC4CAQAw"}`, "private key"},
		"after other text":      {"Bag Attributes\n    friendlyName: x\n" + begin("PRIVATE") + "MC4CAQAw", "private key"},
		"after binary":          {"\x00\x01\xff" + begin("PRIVATE") + "MC4CAQAw", "private key"},
		"late":                  {strings.Repeat("x", secretWindow-200) + begin("PRIVATE") + "MC4CAQAw", "private key"},
		"PuTTY":                 {"PuTTY-User-Key-File-" + "3: ssh-ed25519\nEncryption: none", "PuTTY private key"},
		"age":                   {"# created: 2026\n# public key: age1xyz\nAGE-SECRET-" + "KEY-1" + strings.Repeat("Q", 58), "age secret key"},
		"minisign":              {"untrusted comment: minisign encrypted secret key\n" + base64, "minisign or signify secret key"},
		"signify":               {"untrusted comment: signify secret key\n" + base64, "minisign or signify secret key"},
		"Nix cache":             {"cache.example.org-1:" + base64[:86] + "==\n", "Nix signing key"},

		"public PEM":                 {begin("PUBLIC") + "MCowBQYDK2Vw", ""},
		"certificate":                {"-----BEGIN CERTIFICATE-----\nMIIB", ""},
		"SSH public key":             {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 alice@x", ""},
		"file encrypted with age":    {"-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5", ""},
		"PGP message":                {"-----BEGIN PGP MESSAGE-----\n\nhQIMA", ""},
		"minisign public key":        {"untrusted comment: minisign public key ABC\n" + base64[:56], ""},
		"Nix public key":             {"cache.example.org-1:" + base64[:43] + "=", ""},
		"age recipient":              {"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", ""},
		"header in a program":        {`if strings.Contains(s, "` + strings.TrimSuffix(begin("PRIVATE"), "\n") + `") {`, ""},
		"header in documentation":    {begin("OPENSSH PRIVATE") + "...\n", ""},
		"placeholder":                {begin("PRIVATE") + "<your key>", ""},
		"age key in documentation":   {"AGE-SECRET-" + "KEY-1...", ""},
		"an hour":                    {"at:noon", ""},
		"nothing":                    {"", ""},
		"words about a private key":  {"keep your PRIVATE KEY safe", ""},
		"untrusted comment in prose": {"untrusted comment: about a secret key\nand more", ""},
	} {
		t.Run(title, func(t *testing.T) {
			if got := secretIn([]byte(c.text)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

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
