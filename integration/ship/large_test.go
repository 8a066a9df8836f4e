package ship_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// The sizes, which make matrix makes larger.
var (
	mebibytes = flag.Int("mebibytes", 200, "how large the large path is")
	manyFiles = flag.Int("files", 6_000, "how many files the tree of small files has")
)

// TestMemoryStaysFlatWhateverThePathsSize ships a difference of a path that is larger than the machine's memory allows for, and
// looks at every process there meanwhile.
func TestMemoryStaysFlatWhateverThePathsSize(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{Target: lab.Options{Memory: 256 << 20}})
	size := *mebibytes << 20
	noise := filepath.Join(d.Builder.Home(), "noise")
	if err := d.Builder.WriteFile(noise, []byte(noiseBlock), 0o644); err != nil {
		t.Fatal(err)
	}
	// Sparse but for some noise here and there, with something else in its middle each time, and the end moved.
	large := func(turn int) {
		d.configure(fmt.Sprintf("  environment.etc.large.source = %s;\n", made("large-1."+fmt.Sprint(turn), fmt.Sprintf(`
truncate -s %d $out
for at in 5 40 41 99 130 200 250; do dd if=%s of=$out bs=1M seek=$at conv=notrunc status=none; done
for at in 7 41 100 160 220 280; do echo turn %d $out | dd of=$out bs=1M seek=$at conv=notrunc status=none; done
head -c %d %s >>$out`, size, noise, turn, turn*100_000, noise))))
	}
	large(1)
	d.ship()
	space := d.OnTarget("readlink", "/proc/self/ns/pid")
	quit, peak := make(chan struct{}), make(chan map[string]int)
	go func() {
		highest := map[string]int{}
		for {
			select {
			case <-quit:
				peak <- highest
				return
			case <-time.After(10 * time.Millisecond):
				site.Peaks(space, highest)
			}
		}
	}()
	large(2)
	s := d.shipUnseen()
	close(quit)
	highest := <-peak
	d.allArrived()
	if p := s.part(t, "large-1.2"); p.base != "large-1.1" || p.added > 101_000 {
		t.Errorf("%+v", p)
	}
	t.Logf("KiB: %v", highest)
	agent, nix := highest["agent"], highest["nix-store"]
	if agent == 0 || agent > 32<<10 || nix == 0 || agent+nix > 64<<10 {
		t.Errorf("the agent had %d KiB in memory and nix-store %d; the limit is %d, and %d together", agent, nix, 32<<10, 64<<10)
	}
	if n, err := d.Target.OOMKills(); err != nil || n > 0 {
		t.Errorf("%d processes were killed for want of memory, %v", n, err)
	}
}

var noiseBlock = noise(30, 1<<20)

// TestATreeOfManySmallFiles ships a tree like that of nixpkgs, and then what a month makes of it.
func TestATreeOfManySmallFiles(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{})
	files := *manyFiles
	folder := filepath.Join(d.Builder.Home(), "packages")
	name := func(i int) string { return fmt.Sprintf("%s/pkgs/%02x/p%d/default.nix", folder, i%251, i) }
	text := func(i, version int) string {
		return fmt.Sprintf("{ stdenv }: stdenv.mkDerivation {\n  pname = \"p%d\"; version = \"%d.%d\";\n  sha256 = %q;\n  # %s\n}\n", i, i%9, version, storeHash(i*100+version), strings.Repeat("text ", i%100))
	}
	for i := range files {
		file := d.Builder.Path(name(i))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text(i, 0)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree := func(version string) {
		d.configure(fmt.Sprintf("  environment.etc.packages.source = %s;\n", made("packages-"+version, "cp -R -P "+folder+" $out")))
	}
	tree("1")
	d.ship()
	for i := range files {
		file := d.Builder.Path(name(i))
		var err error
		switch i % 40 {
		case 3, 17:
			err = os.WriteFile(file, []byte(text(i, 1)), 0o644)
		case 9:
			err = os.RemoveAll(filepath.Dir(file))
		case 11:
			err = os.Rename(filepath.Dir(file), filepath.Dir(file)+"-renamed")
		case 13:
			err = os.WriteFile(filepath.Join(filepath.Dir(file), "fix.patch"), []byte(text(i, 2)), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tree("2")
	s := d.ship()
	t.Logf("%v of %v", s.wire, s.bytes)
	if p := s.part(t, "packages-2"); p.base != "packages-1" || p.added > p.bytes/10 {
		t.Errorf("%+v", p)
	}
}
