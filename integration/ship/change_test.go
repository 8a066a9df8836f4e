package ship_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// noise is bytes that cannot be compressed, always the same for a seed.
func noise(seed, n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return string(b)
}

// storeHash is what stands for a store path's hash.
func storeHash(seed int) string {
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	b := make([]byte, 32)
	for i := range b {
		b[i] = "0123456789abcdfghijklmnpqrsvwxyz"[random.IntN(32)]
	}
	return string(b)
}

// put is text with other texts in place of what is at some offsets.
func put(text string, at func(yield func(offset int, text string) bool)) string {
	b := []byte(text)
	for offset, t := range at {
		copy(b[offset:], t)
	}
	return string(b)
}

// hashes puts a store hash every so many bytes, the distance growing by one each time: they stand at every place of a block.
func hashes(generation, every, n int) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for i, at := 0, every; at+40 < n; i, at = i+1, at+every+i%17 {
			if !yield(at, storeHash(generation<<20|i%50)) {
				return
			}
		}
	}
}

// atBorders puts a store hash across each border between mebibytes.
func atBorders(generation, n int) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for at := 1 << 20; at+40 < n; at += 1 << 20 {
			if !yield(at-at>>20%32-1, storeHash(generation<<20|at>>20)) {
				return
			}
		}
	}
}

func wide(text string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune(text)) {
		b.Write([]byte{byte(unit), byte(unit >> 8)})
	}
	return b.String()
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

// change is what becomes of some store paths. They are called by the change's name, and the rest of their names is the key.
type change struct {
	before, after map[string]tree
	most          int // how many bytes of what is new may be sent; -1: none of the paths may be sent at all
}

// one is a change of one store path.
func one(before, after tree, most int) change {
	return change{map[string]tree{"": before}, map[string]tree{"": after}, most}
}

// changes are those of every kind.
func changes() map[string]change {
	n100, n200, big := noise(1, 100_000), noise(2, 200_000), noise(3, 9<<20+12345)
	deep := strings.Repeat("folder/", 60)
	return map[string]change{
		"nothing":      one(tree{"a": n100}, tree{"a": n100}, -1),
		"one-byte":     one(tree{"a": n100}, tree{"a": put(n100, hashes(1, 99_000, 99_100))}, 300),
		"hashes":       one(tree{"a": put(n200, hashes(1, 300, 200_000))}, tree{"a": put(n200, hashes(2, 300, 200_000))}, 650*33),
		"dense-hashes": one(tree{"a": put(n100, hashes(1, 70, 100_000))}, tree{"a": put(n100, hashes(2, 70, 100_000))}, 1300*34),
		// So dense that operations would cost more than they save.
		"nothing-but-hashes": one(tree{"a": put(n100, hashes(1, 40, 100_000))}, tree{"a": put(n100, hashes(2, 40, 100_000))}, 101_000),
		"borders":            one(tree{"a": put(big, atBorders(1, len(big)))}, tree{"a": put(big, atBorders(2, len(big)))}, 10*40),
		"utf16":              one(tree{"a": n100 + wide(storeHash(1)+"/bin/sh") + n200}, tree{"a": n100 + wide(storeHash(2)+"/bin/sh") + n200}, 100),
		"split-hash": one(tree{"a": n100 + storeHash(1)[:9] + "\n" + storeHash(1)[9:] + n200},
			tree{"a": n100 + storeHash(2)[:9] + "\n" + storeHash(2)[9:] + n200}, 100),
		"inserted":       one(tree{"a": n200}, tree{"a": "new" + n200[:77_777] + "here" + n200[77_777:]}, 100),
		"removed":        one(tree{"a": n200}, tree{"a": n200[5:77_777] + n200[99_999:]}, 100),
		"turned-round":   one(tree{"a": n100 + n200}, tree{"a": n200 + n100}, 300),
		"compressed":     one(tree{"a": zipped(n100)}, tree{"a": zipped(put(n100, hashes(1, 300, 100_000)))}, 101_000),
		"zeros":          one(tree{"a": strings.Repeat("\x00", 3<<20)}, tree{"a": strings.Repeat("\x00", 1<<20) + "x" + strings.Repeat("\x00", 2<<20)}, 100),
		"moved":          one(tree{"a/x": n200, "k": "1"}, tree{"b/c/x": n200, "k": "1"}, 500),
		"swapped":        one(tree{"a": n100, "b": noise(4, 100_000)}, tree{"a": noise(4, 100_000), "b": n100}, 201_000),
		"file-to-folder": one(tree{"a": n100, "z": n200}, tree{"a/a": n100, "a/b/": "", "z": n200}, 101_000),
		"folder-to-file": one(tree{"a/a": n100, "a/b/": "", "z": n200}, tree{"a": n100, "z": n200}, 101_000),
		"file-to-link":   one(tree{"a": n100, "z": n200}, tree{"a": "-> z", "z": n200}, 300),
		"link-to-file":   one(tree{"a": "-> z", "z": n200}, tree{"a": n100, "z": n200}, 101_000),
		"link-elsewhere": one(tree{"a": "-> z", "b": "-> /nix/store/" + storeHash(1), "z": n200}, tree{"a": "-> /etc/passwd", "b": "-> /nix/store/" + storeHash(2), "z": n200}, 600),
		"made-runnable":  one(tree{"a": n100, "b": "+x" + n200}, tree{"a": "+x" + n100, "b": n200}, 500),
		"emptied":        one(tree{"a": n100, "b": "", "c": "x", "z": n200}, tree{"a": "", "b": "y", "c": "", "z": n200}, 600),
		"folders": one(tree{"a/": "", "b/c/d/": "", "e/f": "", "z": n200},
			tree{"a/x/": "", "b/c/": "", "e/": "", "g/h/i/": "", "z": n200}, 1500),
		"deep":  one(tree{deep + "x": n200}, tree{deep + "x": put(n200, hashes(1, 50_000, 200_000)), deep + "y/": ""}, 500),
		"names": one(tree{"a b": n100, "a-b": "1", "a/b": "2", "é": "3", "two\nlines": "4"}, tree{"a b": n100, "a-b": "x", "a/b": "y", "é": "z", strings.Repeat("n", 255): "4", "~": ""}, 3000),

		"root-file-to-folder": one(tree{"": n200}, tree{"a": n200}, 201_000),
		"root-folder-to-file": one(tree{"a": n200}, tree{"": n200}, 201_000),
		"root-to-link":        one(tree{"": n200}, tree{"": "-> /nowhere"}, 300),
		"root-made-runnable":  one(tree{"": n200}, tree{"": "+x" + n200}, 300),
		"root-emptied":        one(tree{"": n200}, tree{"": ""}, 300),
		"root-empty-folder":   one(tree{"a": n200}, tree{"/": ""}, 300),

		"version": {
			map[string]tree{"1.2": {"lib/libx.so.1.2": n200, "lib/libx.so.1": "-> libx.so.1.2", "share/doc/x-1.2/README": "x 1.2", "share/x": n100}},
			map[string]tree{"1.3": {"lib/libx.so.1.3": put(n200, hashes(1, 10_000, 200_000)), "lib/libx.so.1": "-> libx.so.1.3", "share/doc/x-1.3/README": "x 1.3", "share/x": n100}},
			3000,
		},
		"renamed": {map[string]tree{"old": {"a": noise(5, 300_000)}}, map[string]tree{"new": {"a": noise(5, 300_000)}}, 500},
		"split": {
			map[string]tree{"": {"bin/x": noise(6, 300_000), "lib/x": noise(7, 300_000)}},
			map[string]tree{"bin": {"bin/x": noise(6, 300_000)}, "lib": {"lib/x": noise(7, 300_000)}}, 1000,
		},
		"merged": {
			map[string]tree{"bin": {"bin/x": noise(8, 300_000)}, "lib": {"lib/x": noise(9, 300_000)}},
			map[string]tree{"": {"bin/x": noise(8, 300_000), "lib/x": noise(9, 300_000)}}, 1000,
		},
		"new": {nil, map[string]tree{"": {"a": noise(10, 50_000)}}, 51_000},
	}
}

func pathName(change, rest string) string { return strings.TrimSuffix(change+"-"+rest, "-") }

// TestEveryKindOfChange ships changes of every kind at once: what arrives is the new, and what the target has already is not sent.
func TestEveryKindOfChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options   site.Options
		optimised bool
	}{
		"Nix 2.8":                    {},
		"Nix 2.26":                   {options: site.Options{Target: lab.Options{Suite: "trixie"}}},
		"a store with no file twice": {optimised: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDock(t, c.options)
			if c.optimised {
				d.OnTarget("sh", "-c", "echo auto-optimise-store = true >>/etc/nix/nix.conf")
			}
			all, before, after := changes(), map[string]tree{}, map[string]tree{}
			for name, c := range all {
				for rest, x := range c.before {
					before[pathName(name, rest)] = x
				}
				for rest, x := range c.after {
					after[pathName(name, rest)] = x
				}
			}
			d.offer(before)
			d.ship()
			d.offer(after)
			s := d.ship()
			for name, c := range all {
				for rest := range c.after {
					path := pathName(name, rest)
					if sent := strings.Contains(s.Errors, "-"+path+": "); !sent || c.most < 0 {
						if sent || c.most >= 0 {
							t.Errorf("%s: sent: %v", path, sent)
						}
						continue
					}
					if p := s.part(t, path); p.added > float64(c.most) {
						t.Errorf("%+v were sent, which may be %d bytes", p, c.most)
					}
				}
			}
			if c.optimised && d.OnTarget("sh", "-c", "ls /nix/store/.links | head -n 1") == "" {
				t.Error("the target does not optimise its store")
			}
		})
	}
}

// TestOnlyWhatChangedIsShipped ships to a target that has nothing, the same again, and a change of one path.
func TestOnlyWhatChangedIsShipped(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{Bare: true})
	relay := d.Relayed("alice", lab.RelayOptions{})
	trees := map[string]tree{"a": {"x": noise(1, 1_000_000), "y": "1"}, "b": {"x": strings.Repeat("text ", 100_000)}}
	d.offer(trees)
	// Among them are busybox, nixpkgs with its two, and the switch program.
	if s := d.ship(); s.differences > 0 || s.wire > 6.5e6 || s.wire < 1e6 {
		t.Errorf("cold: %+v", s)
	}
	up := func() int64 {
		t.Helper()
		before := relay.Traffic().Up
		if s := d.try(); s.paths > 0 {
			t.Errorf("again: %+v", s)
		}
		return relay.Traffic().Up - before
	}
	few := up()
	for i := range 300 {
		trees[fmt.Sprint("small-", i)] = tree{"": fmt.Sprint(i)}
	}
	d.offer(trees)
	d.ship()
	if many := up(); many > few+1000 {
		t.Errorf("with 300 more paths, none of which is missing, %d bytes are sent, and with few %d", many, few)
	}
	trees["a"]["y"] = "2"
	d.offer(trees)
	s := d.ship()
	if p := s.part(t, "a"); p.added > 200 || s.wire > 30e3 {
		t.Errorf("%+v, %v bytes in all", p, s.wire)
	}
	if strings.Contains(s.Errors, "-b: ") || strings.Contains(s.Errors, "-small-") {
		t.Error("more was shipped than has changed")
	}
}

// rebuilt is a part of a configuration: 30 store paths that refer to each other, each with the paths of its own and of two others
// in it many times. They are made of what is in a folder, and anew for every seed.
func rebuilt(seed, folder string) string {
	return fmt.Sprintf(`  environment.etc.rebuilt.source = let
    all = builtins.genList (n: derivation {
      name = "part-${toString n}-1.0"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; LC_ALL = "C"; seed = %q;
      below = if n == 0 then "none" else builtins.elemAt all (n - 1);
      other = if n < 7 then "none" else builtins.elemAt all (n - 7);
      args = [ "-euc" "mkdir -p $out/lib; sed \"s|@out@|$out|g; s|@below@|$below|g; s|@other@|$other|g\" %s/${toString n} >$out/lib/code; ln -s $below $out/below" ];
    }) 30;
  in builtins.elemAt all 29;
`, seed, folder)
}

// TestARebuildCostsLittle changes the input that every path depends on: only hashes of the store differ, and then what another flag
// for the compiler changes in the code besides.
func TestARebuildCostsLittle(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{})
	const length, parts = 250_000, 30
	code := func(flag int) (folder string) {
		folder = fmt.Sprintf("%s/code%d", d.Builder.Home(), flag)
		for n := range parts {
			text := put(noise(1000+n, length), func(yield func(int, string) bool) {
				for at := 700; at+100 < length && yield(at, []string{"@out@/lib", "@below@/bin", "@other@/share"}[at%3]); at += 1000 + at%7 {
				}
			})
			if flag > 0 {
				// A jump here, a number there.
				text = put(text, func(yield func(int, string) bool) {
					for at := 10_000; at+100 < length && yield(at, noise(at+flag, 1+at%9)); at += 9000 + at%100 {
					}
				})
			}
			if err := d.Builder.WriteFile(fmt.Sprint(folder, "/", n), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return folder
	}
	plain := code(0)
	d.configure(rebuilt("first", plain))
	if s := d.ship(); s.bytes < parts*length {
		t.Errorf("%+v", s)
	}
	d.configure(rebuilt("second", plain))
	s := d.ship()
	t.Logf("rebuilt: %v of %v", s.wire, s.bytes)
	if s.differences < parts || s.wire > s.bytes*0.01 {
		t.Errorf("%d of %d paths as differences, %v of %v bytes", s.differences, s.paths, s.wire, s.bytes)
	}
	d.configure(rebuilt("third", code(1)))
	s = d.ship()
	t.Logf("with a flag: %v of %v", s.wire, s.bytes)
	if s.differences < parts || s.wire > s.bytes*0.02 {
		t.Errorf("%d of %d paths as differences, %v of %v bytes", s.differences, s.paths, s.wire, s.bytes)
	}
}
