package ship

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ferry/internal/nix"
)

// pathOf is a store path called name.
func pathOf(name string) nix.StorePath {
	sum := sha256.Sum256([]byte(name))
	digits := make([]byte, 32)
	for i := range digits {
		digits[i] = "0123456789abcdfghijklmnpqrsvwxyz"[sum[i]%32]
	}
	return nix.StorePath("/nix/store/" + string(digits) + "-" + name)
}

func infoOf(name string, references ...string) nix.PathInfo {
	info := nix.PathInfo{Path: pathOf(name), NarSize: 100}
	for _, r := range references {
		info.References = append(info.References, pathOf(r))
	}
	return info
}

// checkOrder fails unless sorted has every path of infos once, behind all that it refers to.
func checkOrder(t *testing.T, infos, sorted []nix.PathInfo) {
	t.Helper()
	if len(sorted) != len(infos) {
		t.Fatalf("%d paths out of %d", len(sorted), len(infos))
	}
	place := map[nix.StorePath]int{}
	for i, info := range sorted {
		if _, twice := place[info.Path]; twice {
			t.Fatalf("%s is there twice", info.Path)
		}
		place[info.Path] = i
	}
	for i, info := range sorted {
		for _, r := range info.References {
			if at, there := place[r]; there && at > i {
				t.Fatalf("%s stands before %s", info.Path, r)
			}
		}
	}
}

func TestSortByReferences(t *testing.T) {
	for name, infos := range map[string][]nix.PathInfo{
		"nothing":                 nil,
		"one":                     {infoOf("a")},
		"refers to itself":        {infoOf("a", "a"), infoOf("b", "b", "a")},
		"refers to what is there": {infoOf("a", "elsewhere"), infoOf("b", "a", "elsewhere")},
		"reversed":                {infoOf("c", "b", "a"), infoOf("b", "a"), infoOf("a")},
		"a diamond":               {infoOf("top", "left", "right"), infoOf("left", "bottom"), infoOf("right", "bottom"), infoOf("bottom")},
	} {
		t.Run(name, func(t *testing.T) {
			sorted, err := sortByReferences(infos)
			if err != nil {
				t.Fatal(err)
			}
			checkOrder(t, infos, sorted)
		})
	}
}

func TestSortByReferencesOfRandomGraphs(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		infos := make([]nix.PathInfo, 1+r.IntN(200))
		for i := range infos {
			infos[i] = infoOf(fmt.Sprint(i), fmt.Sprint(i))
			for range r.IntN(8) {
				infos[i].References = append(infos[i].References, pathOf(fmt.Sprint(r.IntN(i+1))))
			}
		}
		r.Shuffle(len(infos), func(i, j int) { infos[i], infos[j] = infos[j], infos[i] })
		sorted, err := sortByReferences(infos)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		checkOrder(t, infos, sorted)
	}
}

func TestSortByReferencesOfADeepChain(t *testing.T) {
	const deep = 30_000
	infos := make([]nix.PathInfo, deep)
	for i := range infos {
		infos[i] = infoOf(fmt.Sprint(i), fmt.Sprint(i+1))
	}
	sorted, err := sortByReferences(infos)
	if err != nil {
		t.Fatal(err)
	}
	checkOrder(t, infos, sorted)
}

func TestSortByReferencesTellsACycle(t *testing.T) {
	for _, infos := range [][]nix.PathInfo{
		{infoOf("a", "b"), infoOf("b", "a")},
		{infoOf("x", "a"), infoOf("a", "b"), infoOf("b", "c"), infoOf("c", "a")},
	} {
		if _, err := sortByReferences(infos); err == nil || !strings.Contains(err.Error(), "refer to each other") {
			t.Errorf("got %v", err)
		}
	}
}

// fakeStore is a store of a few paths.
type fakeStore struct {
	infos []nix.PathInfo
	err   error
}

func (s fakeStore) Closure([]nix.StorePath) ([]nix.StorePath, error) {
	var paths []nix.StorePath
	for _, info := range s.infos {
		paths = append(paths, info.Path)
	}
	return paths, s.err
}

func (s fakeStore) PathInfos(paths []nix.StorePath) ([]nix.PathInfo, error) {
	var infos []nix.PathInfo
	for _, info := range s.infos {
		if slices.Contains(paths, info.Path) && info.NarSize > 0 {
			infos = append(infos, info)
		}
	}
	return infos, s.err
}

// fakeTarget is a target that lacks some paths.
type fakeTarget struct {
	lacks      []nix.StorePath
	err        error
	substitute *bool
}

func (f fakeTarget) Missing(_ context.Context, _ []nix.StorePath, substitute bool) ([]nix.StorePath, error) {
	if f.substitute != nil {
		*f.substitute = substitute
	}
	return f.lacks, f.err
}

func TestMakePlan(t *testing.T) {
	store := fakeStore{infos: []nix.PathInfo{infoOf("top", "lib"), infoOf("lib", "there"), infoOf("there")}}
	var substitute bool
	plan, err := MakePlan(t.Context(), store, fakeTarget{lacks: []nix.StorePath{pathOf("top"), pathOf("lib")}, substitute: &substitute}, pathOf("top"), Options{Substitute: true})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Root != pathOf("top") || plan.Paths != 3 || plan.Bytes != 200 || len(plan.Missing) != 2 || plan.Missing[0].Path != pathOf("lib") || !substitute {
		t.Errorf("%+v, substitute %v", plan, substitute)
	}
	plan, err = MakePlan(t.Context(), store, fakeTarget{}, pathOf("top"), Options{})
	if err != nil || plan.Paths != 3 || plan.Bytes != 0 || plan.Missing != nil {
		t.Errorf("with everything there: %+v, %v", plan, err)
	}
}

func TestMakePlanFails(t *testing.T) {
	broken := errors.New("broken")
	gone := infoOf("gone")
	gone.NarSize = 0
	for name, c := range map[string]struct {
		store fakeStore
		to    fakeTarget
		says  string
	}{
		"the store":    {fakeStore{err: broken}, fakeTarget{}, "look up " + string(pathOf("a")) + ": broken"},
		"the root":     {fakeStore{infos: []nix.PathInfo{infoOf("b")}}, fakeTarget{}, string(pathOf("a")) + " is not in this machine's store any more"},
		"the target":   {fakeStore{infos: []nix.PathInfo{infoOf("a")}}, fakeTarget{err: broken}, "ask what is missing: broken"},
		"a path":       {fakeStore{infos: []nix.PathInfo{infoOf("a"), gone}}, fakeTarget{lacks: []nix.StorePath{pathOf("a"), gone.Path}}, string(gone.Path) + " is not in this machine's store any more"},
		"a wrong path": {fakeStore{infos: []nix.PathInfo{infoOf("a", "b"), infoOf("b", "a")}}, fakeTarget{lacks: []nix.StorePath{pathOf("a"), pathOf("b")}}, "refer to each other"},
	} {
		_, err := MakePlan(t.Context(), c.store, c.to, pathOf("a"), Options{})
		if err == nil || err.Error() != c.says && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVanishedErrorHelps(t *testing.T) {
	inner := errors.New("it is larger")
	e := &VanishedError{Path: pathOf("a"), Err: inner}
	if !errors.Is(e, inner) || !strings.Contains(e.Error(), "cannot be read: it is larger") || !strings.Contains(e.Hints()[1], "nix-store --verify-path "+string(pathOf("a"))) {
		t.Errorf("%v, %q", e, e.Hints())
	}
}
