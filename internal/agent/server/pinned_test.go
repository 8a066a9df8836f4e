package server

import (
	"fmt"
	"strings"
	"testing"

	"ferry/internal/agent"
)

const (
	treeBase32 = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
	treeSRI    = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	treeHex    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	otherSRI   = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

var (
	commit      = strings.Repeat("0123456789", 4)
	otherCommit = strings.Repeat("a", 40)
)

// TestAPinSaysWhichNixpkgsRuns has a tree that does not say it, with a pin in each way that people have.
func TestAPinSaysWhichNixpkgsRuns(t *testing.T) {
	bare := strings.TrimPrefix(treeBase32, "sha256:")
	known := pinned{revision: commit}
	fetched := func(url, more string) string {
		return fmt.Sprintf("{ nixpkgs = fetchTarball { url = %q; sha256 = %q; %s}; nodes = { }; }", url, bare, more)
	}
	github := "https://github.com/NixOS/nixpkgs/archive/"
	for name, c := range map[string]struct {
		file, text string
		want       pinned
	}{
		"a tarball":              {"ferry.nix", fetched(github+commit+".tar.gz", ""), known},
		"a tarball with a name":  {"ferry.nix", fetched(github+commit+".zip", `name = "nixpkgs"; `), known},
		"in a file of its own":   {"nix/nixpkgs.nix", fetched(github+commit+".tar.gz", ""), known},
		"by a variable":          {"ferry.nix", `let rev = "` + commit + `"; in ` + fetched(github+"${rev}.tar.gz", ""), known},
		"by one of two":          {"ferry.nix", `let a = { rev = "` + commit + `"; }; b = { rev = "` + otherCommit + `"; }; in ` + fetched(github+"${rev}.tar.gz", ""), pinned{}},
		"by something else":      {"ferry.nix", fetched(github+"${pins.rev}.tar.gz", ""), pinned{}},
		"a branch":               {"ferry.nix", fetched(github+"nixos-24.05.tar.gz", ""), pinned{}},
		"by a short commit":      {"ferry.nix", fetched(github+"0123456.tar.gz", ""), pinned{}},
		"with a commit beside":   {"ferry.nix", fetched("https://nixpkgs.example/"+commit+"/nixpkgs.tar.gz", ""), pinned{}},
		"in a comment":           {"ferry.nix", "{ # " + fetched(github+commit+".tar.gz", "") + "\n}", pinned{}},
		"in a long comment":      {"ferry.nix", "{ /* " + fetched(github+commit+".tar.gz", "") + "\n*/ }", pinned{}},
		"with one in a comment":  {"ferry.nix", fetched(github+"nixos-24.05.tar.gz", "# url = \""+github+commit+".tar.gz\";\n"), pinned{}},
		"without a hash":         {"ferry.nix", `{ nixpkgs = fetchTarball { url = "` + github + commit + `.tar.gz"; }; }`, pinned{}},
		"of another tree":        {"ferry.nix", `{ nixpkgs = fetchTarball { url = "` + github + commit + `.tar.gz"; sha256 = "` + otherSRI + `"; }; }`, pinned{}},
		"fetchTree":              {"ferry.nix", `{ nixpkgs = fetchTree { type = "github"; rev = "` + commit + `"; narHash = "` + treeSRI + `"; }; }`, known},
		"base 16":                {"ferry.nix", `{ x = f { rev = "` + commit + `"; sha256 = "` + treeHex + `"; }; }`, known},
		"two that agree":         {"ferry.nix", fetched(github+commit+".tar.gz", "") + fetched(github+commit+".zip", ""), known},
		"two that do not":        {"ferry.nix", fetched(github+commit+".tar.gz", "") + fetched(github+otherCommit+".tar.gz", ""), pinned{}},
		"a flake":                {"flake.lock", flakeLock(treeSRI, commit), pinned{commit, 1750000000}},
		"a flake's other input":  {"flake.lock", flakeLock(otherSRI, commit), pinned{}},
		"a flake with no commit": {"flake.lock", flakeLock(treeSRI, "main"), pinned{}},
		"npins": {"npins/sources.json", `{"pins": {"nixpkgs": {"type": "Git", "revision": "` + commit + `", "url": "` + github + commit + `.tar.gz", "hash": "` + bare + `"},
			"other": {"revision": "` + otherCommit + `", "hash": "` + otherSRI + `"}}, "version": 5}`, known},
		"niv":          {"nix/sources.json", `{"nixpkgs": {"rev": "` + commit + `", "sha256": "` + bare + `", "type": "tarball"}}`, known},
		"broken":       {"flake.lock", flakeLock(treeSRI, commit)[1:], pinned{}},
		"far too deep": {"other/flake.lock", flakeLock(treeSRI, commit), pinned{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withNixpkgs()
			m.Write("/nix/store/44444444444444444444444444444444-source/"+c.file, c.text)
			if got := m.looked(); got.NixpkgsRevision != c.want.revision || got.NixpkgsDate != c.want.date {
				t.Errorf("%q, %d: want %+v", got.NixpkgsRevision, got.NixpkgsDate, c.want)
			}
		})
	}
}

// TestATreeThatSaysItsRevisionIsBelieved even against a pin.
func TestATreeThatSaysItsRevisionIsBelieved(t *testing.T) {
	m := newMachine(t).withNixpkgs()
	m.Write("/nix/store/44444444444444444444444444444444-source/flake.lock", flakeLock(treeSRI, commit))
	m.Write("/nix/store/55555555555555555555555555555555-source/.git-revision", otherCommit+"\n")
	if got := m.looked(); got.NixpkgsRevision != otherCommit {
		t.Errorf("%+v", got)
	}
}

// TestADateFromAPinHasAYear that can be written down.
func TestADateFromAPinHasAYear(t *testing.T) {
	m := newMachine(t).withNixpkgs()
	m.Write("/nix/store/44444444444444444444444444444444-source/flake.lock", strings.Replace(flakeLock(treeSRI, commit), "1750000000", "1e300", 1))
	if got := m.looked(); got.NixpkgsRevision != commit || got.NixpkgsDate != agent.MaxDate {
		t.Errorf("%+v", got)
	}
}

func flakeLock(hash, revision string) string {
	return `{"nodes": {"other": {"locked": {"narHash": "` + otherSRI + `", "rev": "` + otherCommit + `", "lastModified": 1}},
		"nixpkgs": {"locked": {"lastModified": 1750000000, "narHash": "` + hash + `", "owner": "NixOS", "rev": "` + revision + `", "type": "github"}}}, "version": 7}`
}

// withNixpkgs gives the machine a bundle with a source and a tree of nixpkgs, and a Nix that knows the tree's hash. The links can
// be followed without knowing where the machine's root is.
func (m *fakeMachine) withNixpkgs() *fakeMachine {
	m.Link("../44444444444444444444444444444444-source", string(oldBundle)+"/source")
	m.Link("../55555555555555555555555555555555-source", string(oldBundle)+"/nixpkgs")
	m.Write("/nix/store/55555555555555555555555555555555-source/nixos/default.nix", "")
	m.Program("/bin/nix-store", "#!/bin/sh\n"+`[ "$*" = "--query --hash /nix/store/55555555555555555555555555555555-source" ] && echo `+treeBase32+"\n")
	return m
}
