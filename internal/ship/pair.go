package ship

import (
	"cmp"
	"slices"
	"strings"

	"ferry/internal/nix"
)

// pairs finds for a path the old ones that it is likely to have most in common with.
type pairs struct {
	byName map[string][]nix.PathInfo
	like   map[string][]nix.PathInfo // by the name without versions
}

// smallest is the size in bytes of a NAR from which on a difference is worth the name of its base.
const smallest = 512

// mostBases is how many old paths of its name a path is compared with.
const mostBases = 2

func newPairs(old []nix.PathInfo) *pairs {
	p := &pairs{byName: map[string][]nix.PathInfo{}, like: map[string][]nix.PathInfo{}}
	for _, info := range old {
		name := info.Path.Name()
		p.byName[name] = append(p.byName[name], info)
		p.like[withoutVersion(name)] = append(p.like[withoutVersion(name)], info)
	}
	return p
}

// of gives the bases for a path, the likeliest first: those of the same name, of about the same size before others; else those of
// another version.
func (p *pairs) of(info nix.PathInfo) []nix.StorePath {
	candidates := p.byName[info.Path.Name()]
	if len(candidates) == 0 {
		candidates = p.like[withoutVersion(info.Path.Name())]
	}
	candidates = slices.Clone(candidates)
	slices.SortStableFunc(candidates, func(a, b nix.PathInfo) int {
		return cmp.Or(cmp.Compare(difference(a.NarSize, info.NarSize), difference(b.NarSize, info.NarSize)), cmp.Compare(a.Path, b.Path))
	})
	var bases []nix.StorePath
	for _, c := range candidates[:min(len(candidates), mostBases)] {
		bases = append(bases, c.Path)
	}
	return bases
}

func difference(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// withoutVersion is a name with its version taken out, and what follows the version left: "openssl-3.0.11-bin" is "openssl--bin".
// As in Nix, the version begins at the first dash that no letter follows.
func withoutVersion(name string) string {
	for i := 0; i+1 < len(name); i++ {
		if c := name[i+1] | 0x20; name[i] != '-' || c >= 'a' && c <= 'z' {
			continue
		}
		version := name[i+1:]
		// An output's name is the last part that is made of letters only.
		output := ""
		if dash := strings.LastIndexByte(version, '-'); dash >= 0 && isWord(version[dash+1:]) {
			output = version[dash:]
		}
		return name[:i] + "-" + output
	}
	return name
}

func isWord(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return s != ""
}
