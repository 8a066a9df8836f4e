package server

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// maxGenerationsSize is how long all generations may be as JSON, in bytes: they are one frame.
const maxGenerationsSize = 900 << 10

// listGenerations lists the system profile's generations, as far back as fits into an answer.
func listGenerations(r machine.Root) (*agent.GenerationsResult, error) {
	numbers, err := generationNumbers(r)
	if err != nil {
		return nil, err
	}
	result := &agent.GenerationsResult{
		Generations: []agent.Generation{},
		Current:     r.StorePath("/run/current-system"), Booted: r.StorePath("/run/booted-system"),
	}
	origins := readOrigins(r)
	boots := readProfile(r).generation
	size := 0
	// The newest first, and turned round in the end: of many, these are told.
	for _, number := range numbers {
		g := agent.Generation{Number: number, Time: r.Modified(generationPath(number)), Toplevel: r.StorePath(generationPath(number)), Default: number == boots}
		g.Version = run.Clean(nixosVersion(r, g.Toplevel))
		o := origins.of(g)
		g.Bundle, g.Revision, g.Dirty = o.bundle, o.revision, o.dirty
		text, err := json.Marshal(g)
		if err != nil {
			return nil, err
		}
		if size += len(text) + len(",\"current\":true,\"booted\":true"); size > maxGenerationsSize || len(result.Generations) == agent.MaxGenerations {
			break
		}
		result.Generations = append(result.Generations, g)
	}
	result.Older = len(numbers) - len(result.Generations)
	if i := indexOf(result.Generations, result.Current); i >= 0 {
		result.Generations[i].Current = true
	}
	if i := indexOf(result.Generations, result.Booted); i >= 0 {
		result.Generations[i].Booted = true
	}
	slices.Reverse(result.Generations)
	return result, nil
}

// indexOf finds the generation that a toplevel runs as: if several are the same system, the one that boots, else the newest.
func indexOf(newestFirst []agent.Generation, toplevel string) int {
	same := func(g agent.Generation) bool { return toplevel != "" && g.Toplevel == toplevel }
	if i := slices.IndexFunc(newestFirst, func(g agent.Generation) bool { return same(g) && g.Default }); i >= 0 {
		return i
	}
	return slices.IndexFunc(newestFirst, same)
}

// generationNumbers are the numbers of the system profile's generations, the newest first.
func generationNumbers(r machine.Root) ([]int, error) {
	entries, err := os.ReadDir(r.Path(filepath.Dir(systemProfile)))
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		if m := generationLink.FindStringSubmatch(e.Name()); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
				numbers = append(numbers, n)
			}
		}
	}
	slices.SortFunc(numbers, func(a, b int) int { return cmp.Compare(b, a) })
	return numbers, nil
}

// generationOf is the newest generation that stands for a toplevel; 0: none does.
func generationOf(r machine.Root, toplevel string) int {
	numbers, err := generationNumbers(r)
	if err != nil {
		return 0
	}
	for _, n := range numbers {
		if r.StorePath(generationPath(n)) == toplevel {
			return n
		}
	}
	return 0
}

// origin is what a system was deployed as.
type origin struct {
	bundle, revision string
	dirty            bool
}

// origins finds what systems were deployed as: a generation, or if it is in no entry any more, any that is the same system.
type origins struct {
	generations map[generationKey]origin
	systems     map[string]origin
}

type generationKey struct {
	number   int
	toplevel string
}

// readOrigins reads the whole journal, and the manifest of the bundle that is kept, which is older than the journal on a target
// that an older ferry deployed to.
func readOrigins(r machine.Root) origins {
	o := origins{map[generationKey]origin{}, map[string]origin{}}
	add := func(key generationKey, from origin) {
		// The newest is first.
		if _, known := o.generations[key]; !known {
			o.generations[key] = from
		}
		if _, known := o.systems[key.toplevel]; !known {
			o.systems[key.toplevel] = from
		}
	}
	if bundle := currentBundle(r); bundle != "" {
		m := readManifest(r, bundle)
		if system := r.StorePath(bundle + "/profile"); system != "" {
			o.systems[system] = origin{bundle, m.Revision, m.Dirty}
		}
	}
	for e := range journalEntries(r) {
		if e.Toplevel != "" && e.Bundle != "" && e.After.Profile == e.Toplevel && e.After.Bundle == e.Bundle {
			add(generationKey{e.After.Generation, e.Toplevel}, origin{e.Bundle, e.Revision, e.Dirty})
		}
	}
	return o
}

func (o origins) of(g agent.Generation) origin {
	if from, known := o.generations[generationKey{g.Number, g.Toplevel}]; known {
		return from
	}
	return o.systems[g.Toplevel]
}
