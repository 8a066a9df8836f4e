package ship_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestASenderWithoutThePartner collects on the builder what the target has: little is sent as a whole, and for much the target is asked
// for its signatures.
func TestASenderWithoutThePartner(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{Alone: true})
	before, after := partners([]string{"data"})
	large := noise(90, 4<<20)
	withLarge := maps.Clone(before)
	withLarge["large"] = tree{"lib/large": large, "share/doc": "before"}
	d.offer(withLarge)
	d.ship()
	kept := d.OnTarget("readlink", "-f", "/nix/var/nix/profiles/system")
	home := d.Builder.Home()
	d.Must("sh", "-euc", `rm -rf "$1/.local/state/ferry" "$1"/installed.nix-*; nix-store --gc >/dev/null 2>&1; nix-store --add "$1/source" >/dev/null; test ! -e "$2"`, "collect", home, kept)
	d.offer(after)
	if s := d.try(); s.differences > 0 || s.part(t, "data").base != "" {
		t.Errorf("%d differences from what is not here", s.differences)
	}
	after["large"] = tree{"lib/large": large[:1<<20] + "put in" + large[1<<20:], "share/doc": "after"}
	d.offer(after)
	if p := d.ship().part(t, "large"); p.base != "large" || p.added > 20_000 {
		t.Errorf("%+v", p)
	}
}

// TestNoDeltaSendsEveryPathAsAWhole locks the flag.
func TestNoDeltaSendsEveryPathAsAWhole(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{})
	before, after := partners([]string{"data"})
	d.offer(before)
	d.ship()
	d.offer(after)
	if s := d.ship("--no-delta"); s.differences > 0 || s.part(t, "data").base != "" || s.wire < 100_000 {
		t.Errorf("%+v", s)
	}
}

// TestTwoShipsAtOnce ships the same from one project to two targets, which have different things.
func TestTwoShipsAtOnce(t *testing.T) {
	t.Parallel()
	one, two := newDock(t, site.Options{}), newDock(t, site.Options{})
	all, trees := changes(), map[string]tree{}
	for name, c := range all {
		for rest, x := range c.before {
			trees[pathName(name, rest)] = x
		}
	}
	one.offer(trees)
	one.ship()
	delete(trees, "hashes")
	trees["moved"] = all["inserted"].before[""]
	two.offer(trees)
	two.ship()
	for name, c := range all {
		for rest, x := range c.after {
			trees[pathName(name, rest)] = x
		}
	}
	one.offer(trees)
	two.offer(trees)
	var ended []func() site.Outcome
	for _, d := range []*dock{one, two} {
		_, end := d.Background("deploy", "--action", "boot", "-v", "--sudo-password-file", d.Password)
		ended = append(ended, end)
	}
	for i, d := range []*dock{one, two} {
		if o := ended[i](); o.Status != 0 {
			t.Errorf("status %d", o.Status)
		}
		d.allArrived()
	}
}

// randomTree is a tree of any shape.
func randomTree(random *rand.Rand) tree {
	x := tree{}
	if random.IntN(20) == 0 {
		return tree{"": randomText(random, random.IntN(50_000))}
	}
	for range random.IntN(40) {
		var parts []string
		for range 1 + random.IntN(4) {
			parts = append(parts, []string{"a", "b", "lib", "x-1.2", "x", "~", "é", "a b"}[random.IntN(8)])
		}
		x.set(random, strings.Join(parts, "/"))
	}
	if len(x) == 0 {
		return tree{"/": ""}
	}
	return x
}

// set puts something at a place, if nothing is above or below it.
func (x tree) set(random *rand.Rand, name string) {
	for other := range x {
		other = strings.TrimSuffix(other, "/")
		if other == "" || other == name || strings.HasPrefix(other, name+"/") || strings.HasPrefix(name, other+"/") {
			return
		}
	}
	switch random.IntN(10) {
	case 0:
		x[name+"/"] = ""
	case 1:
		x[name] = "-> " + storeHash(random.IntN(5))
	case 2:
		x[name] = "+x" + randomText(random, random.IntN(300))
	case 3:
		x[name] = ""
	default:
		x[name] = randomText(random, random.IntN(1<<random.IntN(18)))
	}
}

// randomText is of pieces that come again.
func randomText(random *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		piece := noise(random.IntN(40), 1+random.IntN(5000))
		b.WriteString(piece[random.IntN(len(piece)):])
		if random.IntN(3) == 0 {
			b.WriteString(storeHash(random.IntN(100)))
		}
	}
	return b.String()[:n]
}

// mutated is a tree after some changes.
func (x tree) mutated(random *rand.Rand) tree {
	y := maps.Clone(x)
	for _, name := range slices.Sorted(maps.Keys(x)) {
		if _, there := y[name]; !there {
			continue
		}
		text := y[name]
		switch random.IntN(8) {
		case 0:
			delete(y, name)
			y.set(random, strings.TrimSuffix(name, "/"))
		case 1:
			delete(y, name)
			y.set(random, name+"/below")
		case 2:
			if !strings.HasSuffix(name, "/") && !strings.HasPrefix(text, "-> ") {
				at := random.IntN(len(text) + 1)
				y[name] = text[:at] + storeHash(random.IntN(100)) + text[at:]
			}
		case 3:
			if name != "" {
				delete(y, name)
				y.set(random, "moved/"+strings.TrimSuffix(name, "/"))
			}
		}
	}
	if len(y) == 0 {
		return tree{"/": ""}
	}
	return y
}

// TestAnyTreeArrivesGivenAnyOther ships trees of a seed again and again: sometimes what has become of the one before, sometimes any
// other.
func TestAnyTreeArrivesGivenAnyOther(t *testing.T) {
	t.Parallel()
	const seed, rounds, paths = 1, 4, 25
	random := rand.New(rand.NewPCG(seed, 0))
	d := newDock(t, site.Options{Target: lab.Options{Suite: "trixie"}})
	trees := map[string]tree{}
	for round := range rounds {
		for i := range paths {
			name := fmt.Sprint("tree-", i)
			if round > 0 && random.IntN(4) > 0 {
				trees[name] = trees[name].mutated(random)
			} else {
				trees[name] = randomTree(random)
			}
		}
		d.offer(trees)
		if s := d.ship(); round > 0 && s.differences < paths/4 {
			t.Errorf("round %d: only %d of %d paths as differences", round, s.differences, s.paths)
		}
		if t.Failed() {
			t.Fatalf("round %d of seed %d", round, seed)
		}
	}
}
