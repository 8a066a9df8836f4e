package nix

import (
	"strings"
	"testing"
)

const someHash = "0c0lqyzmvdnpmi3l0hd2bbqkaqvbm6ij"

func TestParseStorePathTakesWhatNixMakes(t *testing.T) {
	for _, name := range []string{
		"hello-2.12", "ferry-pi.drv", "a", "source", "x+y?z=_.", "-dash", "...", ".hidden", strings.Repeat("n", maxNameLength),
	} {
		p, err := ParseStorePath("/nix/store/" + someHash + "-" + name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.Name() != name || p.Hash() != someHash || p.Base() != someHash+"-"+name {
			t.Errorf("%s: name %q, hash %q, base %q", p, p.Name(), p.Hash(), p.Base())
		}
	}
}

func TestParseStorePathRefusesEverythingElse(t *testing.T) {
	for reason, s := range map[string]string{
		"empty":              "",
		"the store itself":   "/nix/store",
		"slash":              "/nix/store/",
		"below":              "/nix/store/" + someHash + "-a/b",
		"trailing slash":     "/nix/store/" + someHash + "-a/",
		"other store":        "/gnu/store/" + someHash + "-a",
		"relative":           "nix/store/" + someHash + "-a",
		"no name":            "/nix/store/" + someHash + "-",
		"no dash":            "/nix/store/" + someHash,
		"short hash":         "/nix/store/" + someHash[1:] + "-a",
		"letter not in hash": "/nix/store/" + strings.Replace(someHash, "c", "e", 1) + "-a",
		"upper case hash":    "/nix/store/" + strings.ToUpper(someHash) + "-a",
		"dot":                "/nix/store/" + someHash + "-.",
		"two dots":           "/nix/store/" + someHash + "-..",
		"dot dash":           "/nix/store/" + someHash + "-.-a",
		"two dots dash":      "/nix/store/" + someHash + "-..-a",
		"space":              "/nix/store/" + someHash + "-a b",
		"newline":            "/nix/store/" + someHash + "-a\n",
		"NUL":                "/nix/store/" + someHash + "-a\x00",
		"not ASCII":          "/nix/store/" + someHash + "-ä",
		"long":               "/nix/store/" + someHash + "-" + strings.Repeat("n", maxNameLength+1),
		"up and down":        "/nix/store/../store/" + someHash + "-a",
	} {
		if p, err := ParseStorePath(s); err == nil {
			t.Errorf("%s: %q was taken", reason, p)
		}
	}
}

func TestSplitStorePath(t *testing.T) {
	root := "/nix/store/" + someHash + "-source"
	for in, rest := range map[string]string{
		root:                   "",
		root + "/a":            "/a",
		root + "/a/b c/..d":    "/a/b c/..d",
		root + "/ferry.nix":    "/ferry.nix",
		root + "/é/\x01/weird": "/é/\x01/weird",
	} {
		p, r, err := SplitStorePath(in)
		if err != nil || string(p) != root || r != rest {
			t.Errorf("%q: %q, %q, %v", in, p, r, err)
		}
	}
	for _, in := range []string{root + "/", root + "/a/", root + "//a", root + "/./a", root + "/a/..", "/etc/passwd", "/nix/store/a/b", root + "/\x00"} {
		if p, r, err := SplitStorePath(in); err == nil {
			t.Errorf("%q was split to %q and %q", in, p, r)
		}
	}
}

func TestIsDerivation(t *testing.T) {
	if !StorePath("/nix/store/" + someHash + "-a.drv").IsDerivation() {
		t.Error("a.drv is a derivation")
	}
	if StorePath("/nix/store/" + someHash + "-a").IsDerivation() {
		t.Error("a is not a derivation")
	}
}

func FuzzStorePath(f *testing.F) {
	f.Add("/nix/store/" + someHash + "-a/b")
	f.Add("/nix/store/" + someHash + "-..")
	f.Add("/nix/store/")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParseStorePath(s); err == nil {
			if "/nix/store/"+p.Hash()+"-"+p.Name() != s || len(s) > maxPathLength {
				t.Errorf("%q became %q", s, p)
			}
		}
		if p, rest, err := SplitStorePath(s); err == nil {
			if string(p)+rest != s || strings.Contains(rest+"/", "/../") {
				t.Errorf("%q became %q and %q", s, p, rest)
			}
		}
	})
}
