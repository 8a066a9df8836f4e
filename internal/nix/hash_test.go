package nix

import "testing"

// The sum of "hello" in all of Nix's spellings, as nix-hash --to-base16 and its siblings print it.
const helloSum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

func TestParseNarHashReadsAllSpellings(t *testing.T) {
	for spelling, s := range map[string]string{
		"base 16": helloSum,
		"base 32": "sha256:094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic",
		"base 64": "sha256:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
		"SRI":     "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
	} {
		sum, err := ParseNarHash(s)
		if err != nil || NarHashOf(sum) != helloSum {
			t.Errorf("%s: %s, %v", spelling, NarHashOf(sum), err)
		}
	}
}

func TestParseNarHashRefusesOthers(t *testing.T) {
	for reason, s := range map[string]string{
		"empty":            "",
		"no algorithm":     helloSum[7:],
		"other algorithm":  "sha512:" + helloSum[7:],
		"short":            helloSum[:len(helloSum)-1],
		"digit":            "sha256:" + "g" + helloSum[8:],
		"base 32 digit":    "sha256:e94qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic",
		"base 32 overflow": "sha256:z94qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic",
		"base 64 padding":  "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCR=",
	} {
		if sum, err := ParseNarHash(s); err == nil {
			t.Errorf("%s: %q was read as %s", reason, s, NarHashOf(sum))
		}
	}
}

func TestSRI(t *testing.T) {
	got, err := SRI(helloSum)
	if want := "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func FuzzNarHash(f *testing.F) {
	f.Add(helloSum)
	f.Add("sha256:094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic")
	f.Add("sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=")
	f.Fuzz(func(t *testing.T, s string) {
		sum, err := ParseNarHash(s)
		if err != nil {
			return
		}
		again, err := ParseNarHash(NarHashOf(sum))
		if err != nil || again != sum {
			t.Errorf("%q: %x, then %x, %v", s, sum, again, err)
		}
	})
}
