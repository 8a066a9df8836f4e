package nix

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

const derivationText = `Derive([("dev","/nix/store/` + someHash + `-a-dev","",""),("out","/nix/store/` + someHash + `-a","r:sha256","ab")],` +
	`[("/nix/store/` + someHash + `-b.drv",["dev","out"])],["/nix/store/` + someHash + `-c.sh"],"x86_64-linux","/bin/sh",["-c","echo \"\\\n\t\r"],` +
	`[("empty",""),("name","a")])`

// TestDerivationsAreReadWhole has everything that one can hold.
func TestDerivationsAreReadWhole(t *testing.T) {
	d, err := ParseDerivation(derivationText)
	if err != nil {
		t.Fatal(err)
	}
	const store = "/nix/store/" + someHash
	want := &Derivation{
		Outputs: map[string]Output{"dev": {Path: store + "-a-dev"}, "out": {store + "-a", "r:sha256", "ab"}},
		Inputs:  map[StorePath][]string{store + "-b.drv": {"dev", "out"}}, Sources: []StorePath{store + "-c.sh"},
		System: "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", "echo \"\\\n\t\r"}, Env: map[string]string{"empty": "", "name": "a"},
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("got %+v", d)
	}
}

// TestWhatIsNoDerivationIsRefused cuts one off everywhere, and has other texts.
func TestWhatIsNoDerivationIsRefused(t *testing.T) {
	for i := range derivationText {
		if _, err := ParseDerivation(derivationText[:i]); err == nil {
			t.Errorf("the first %d bytes are one", i)
		}
	}
	for _, text := range []string{derivationText + "x", strings.Replace(derivationText, "-b.drv", "/b.drv", 1), `Derive([],[],[],"","",[],[("a")])`, "\x00"} {
		if _, err := ParseDerivation(text); err == nil {
			t.Errorf("%q is one", text)
		}
	}
}

// TestTheInstalledNixWritesWhatIsRead reads what nix-instantiate has written.
func TestTheInstalledNixWritesWhatIsRead(t *testing.T) {
	useRealNix(t)
	drv := strings.TrimSpace(string(output(t, "nix-instantiate", "-E", `derivation { name = "x"; system = "s"; builder = "/b"; args = [ "1\n\"2\\" ];
  outputs = [ "out" "doc" ]; a = "\t$"; b = derivation { name = "y"; system = "s"; builder = "/b"; }; }`)))
	text, err := os.ReadFile(drv)
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDerivation(string(text))
	if err != nil || d.Env["a"] != "\t$" || d.Args[0] != "1\n\"2\\" || len(d.Outputs) != 2 || len(d.Inputs) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
}

func FuzzParseDerivation(f *testing.F) {
	f.Add(derivationText)
	f.Add(`Derive([`)
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := ParseDerivation(text); (d == nil) != (err != nil) {
			t.Errorf("%v, %v", d, err)
		}
	})
}
