package compare

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"ferry/internal/nix"
)

// Path is a store path of a closure.
type Path struct {
	Path nix.StorePath
	Size uint64 // of its NAR, in bytes
}

// Change is what became of a package.
type Change string

// The changes.
const (
	Added      Change = "added"
	Removed    Change = "removed"
	Upgraded   Change = "upgraded"
	Downgraded Change = "downgraded"
	Changed    Change = "changed" // there are more versions of it, or fewer
	Rebuilt    Change = "rebuilt" // of the same versions, in other store paths
)

// Package is a package that differs. A store path whose name has no version counts as one without versions.
type Package struct {
	Name   string   `json:"name"`
	Change Change   `json:"change"`
	Before []string `json:"before"` // versions, the lowest first
	After  []string `json:"after"`
}

// Versioned tells whether any version of it is known.
func (p Package) Versioned() bool { return len(p.Before)+len(p.After) > 0 }

// Closure is how two closures differ.
type Closure struct {
	Packages    []Package `json:"packages"` // by name
	PathsBefore int       `json:"paths_before"`
	PathsAfter  int       `json:"paths_after"`
	SizeBefore  uint64    `json:"size_before"` // bytes
	SizeAfter   uint64    `json:"size_after"`
}

// Closures compares two closures by the names of their paths.
func Closures(before, after []Path) Closure {
	c := Closure{Packages: []Package{}, PathsBefore: len(before), PathsAfter: len(after)}
	was, size := group(before)
	c.SizeBefore = size
	is, size := group(after)
	c.SizeAfter = size
	names := maps.Clone(was)
	maps.Copy(names, is)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		b, a := was[name], is[name]
		if maps.Equal(b.paths, a.paths) {
			continue
		}
		p := Package{Name: name, Before: b.list(), After: a.list()}
		p.Change = change(b, a)
		c.Packages = append(c.Packages, p)
	}
	return c
}

// versions are the paths of one package.
type versions struct {
	paths    map[nix.StorePath]bool
	versions map[string]bool
}

func group(paths []Path) (map[string]versions, uint64) {
	packages := map[string]versions{}
	var size uint64
	for _, p := range paths {
		size += p.Size
		name, version := SplitName(p.Path.Name())
		v, known := packages[name]
		if !known {
			v = versions{map[nix.StorePath]bool{}, map[string]bool{}}
			packages[name] = v
		}
		v.paths[p.Path] = true
		if version != "" {
			v.versions[version] = true
		}
	}
	return packages, size
}

func (v versions) list() []string {
	list := slices.AppendSeq(make([]string, 0, len(v.versions)), maps.Keys(v.versions))
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(CompareVersions(a, b), strings.Compare(a, b)) })
	return list
}

func change(before, after versions) Change {
	switch {
	case len(before.paths) == 0:
		return Added
	case len(after.paths) == 0:
		return Removed
	}
	was, is := before.list(), after.list()
	// The highest says most.
	for len(was) > 0 && len(is) > 0 {
		switch CompareVersions(was[len(was)-1], is[len(is)-1]) {
		case -1:
			return Upgraded
		case 1:
			return Downgraded
		}
		was, is = was[:len(was)-1], is[:len(is)-1]
	}
	if len(was)+len(is) > 0 {
		return Changed
	}
	return Rebuilt
}

// outputs are the usual outputs of a package besides the one without a name. They end the name of a store path.
var outputs = []string{
	"-bin", "-data", "-debug", "-dev", "-devdoc", "-dist", "-doc", "-info", "-lib", "-libgcc", "-man", "-modules", "-out", "-static", "-terminfo",
}

// SplitName splits the name of a store path into a package's name and its version, which begins with the first digit that
// follows a dash. The output that the name may end in belongs to neither.
func SplitName(name string) (pkg, version string) {
	for i := 1; i+1 < len(name); i++ {
		if name[i] == '-' && '0' <= name[i+1] && name[i+1] <= '9' {
			pkg, version = name[:i], name[i+1:]
			for _, output := range outputs {
				version = strings.TrimSuffix(version, output)
			}
			return pkg, version
		}
	}
	return name, ""
}

// CompareVersions orders two versions as Nix does: -1 if a is the lower one, 1 if b is, else 0. "pre" comes before
// nothing more, and that before letters, and those before a number.
func CompareVersions(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a = component(a)
		y, b = component(b)
		if c := compareComponents(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// component cuts off the first component of a version: digits, or what is none, up to a dot or dash.
func component(v string) (first, rest string) {
	v = strings.TrimLeft(v, ".-")
	if v == "" {
		return "", ""
	}
	isDigit := func(c byte) bool { return '0' <= c && c <= '9' }
	end := 1
	for end < len(v) && v[end] != '.' && v[end] != '-' && isDigit(v[end]) == isDigit(v[0]) {
		end++
	}
	return v[:end], v[end:]
}

func compareComponents(x, y string) int {
	if isNumber(x) && isNumber(y) {
		m, n := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		return cmp.Or(cmp.Compare(len(m), len(n)), strings.Compare(m, n))
	}
	return cmp.Or(cmp.Compare(rank(x), rank(y)), strings.Compare(x, y))
}

func isNumber(component string) bool {
	return component != "" && '0' <= component[0] && component[0] <= '9'
}

// rank orders components of different kinds.
func rank(component string) int {
	switch {
	case component == "pre":
		return 0
	case component == "":
		return 1
	case isNumber(component):
		return 3
	}
	return 2
}
