package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// pinned is what a pin of nixpkgs says of the tree that it pins: the commit, and when that was made, in seconds since 1970. What
// is not known is empty.
type pinned struct {
	revision string
	date     int64
}

// pins are pinned trees by the hashes of their content.
type pins map[[sha256.Size]byte][]pinned

// nixpkgsOf finds out which nixpkgs a bundle was built from: its tree says it, or a pin in the bundle's source does, of a tree
// with the same hash.
func (s *server) nixpkgsOf(ctx context.Context, bundle string) pinned {
	r := s.root()
	if told := strings.TrimSpace(string(r.Head(bundle + "/nixpkgs/.git-revision"))); told != "" {
		return pinned{revision: told}
	}
	tree := r.StorePath(bundle + "/nixpkgs")
	found := pins{}
	for _, file := range pinFiles(r, bundle+"/source") {
		text := r.Beginning(file, maxPinFile)
		if path.Ext(file) == ".nix" {
			found.readNix(string(text))
		} else {
			found.readJSON(text)
		}
	}
	if tree == "" || len(found) == 0 {
		return pinned{}
	}
	out, err := s.runner.Output(ctx, run.Command{Argv: []string{"nix-store", "--query", "--hash", tree}})
	if err != nil {
		return pinned{}
	}
	sum, err := nix.ParseNarHash(strings.TrimSpace(string(out)))
	if err != nil {
		return pinned{}
	}
	return found.agreed(sum)
}

// agreed is what all pins of one tree say; nothing if they do not say the same.
func (p pins) agreed(tree [sha256.Size]byte) pinned {
	var all pinned
	for _, c := range p[tree] {
		if all.revision != "" && all.revision != c.revision {
			return pinned{}
		}
		all = pinned{c.revision, cmp.Or(all.date, c.date)}
	}
	return all
}

const (
	// maxPinFile is how long a file with pins may be, in bytes, and maxPinFiles how many are read.
	maxPinFile  = 1 << 20
	maxPinFiles = 64
)

// pinFiles are the files of a source in which people have pins: their own, and those of flakes, npins and niv.
func pinFiles(r machine.Root, source string) []string {
	var files []string
	for _, folder := range []string{source, source + "/npins", source + "/nix"} {
		entries, err := os.ReadDir(r.Path(folder))
		if err != nil {
			continue
		}
		for _, e := range entries {
			switch path.Ext(e.Name()) {
			case ".nix", ".json", ".lock":
				if e.Type().IsRegular() && len(files) < maxPinFiles {
					files = append(files, filepath.Join(folder, e.Name()))
				}
			}
		}
	}
	return files
}

var (
	aRevision    = regexp.MustCompile(`^[0-9a-f]{40}$`)
	archive      = regexp.MustCompile(`/([0-9a-f]{40})\.(?:tar\.[a-z0-9]+|zip)$`)
	nixComment   = regexp.MustCompile(`(?s)/\*.*?\*/|#[^\n]*`)
	nixInserted  = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_'-]*)\}`)
	nixSet       = regexp.MustCompile(`\{[^{}]*\}`)
	nixAttribute = regexp.MustCompile(`([A-Za-z][A-Za-z0-9_'-]*)\s*=\s*"([^"$\\]*)"\s*;`)
)

// add notes what one pin, an attribute set or an object, says: it needs a commit and the hash of the tree.
func (p pins) add(attributes map[string]string, date int64) {
	one := pinned{cmp.Or(attributes["rev"], attributes["revision"]), date}
	if !aRevision.MatchString(one.revision) {
		found := archive.FindStringSubmatch(attributes["url"])
		if found == nil {
			return
		}
		one.revision = found[1]
	}
	for _, name := range []string{"narHash", "sha256", "hash"} {
		sum, err := nix.ParseNarHash(attributes[name])
		if err != nil {
			sum, err = nix.ParseNarHash("sha256:" + attributes[name])
		}
		if err == nil {
			p[sum] = append(p[sum], one)
			return
		}
	}
}

// readJSON reads the pins in a flake.lock, or the sources.json of npins or niv.
func (p pins) readJSON(text []byte) {
	var all any
	if json.Unmarshal(text, &all) != nil {
		return
	}
	var walk func(value any)
	walk = func(value any) {
		switch v := value.(type) {
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		case map[string]any:
			attributes := map[string]string{}
			for name, inner := range v {
				if text, is := inner.(string); is {
					attributes[name] = text
				}
				walk(inner)
			}
			date, _ := v["lastModified"].(float64)
			p.add(attributes, int64(min(max(date, 0), agent.MaxDate)))
		}
	}
	walk(all)
}

// readNix reads the pins that a person has written: the attributes of a fetcher, as strings. The commit may be in a variable.
func (p pins) readNix(text string) {
	text = nixComment.ReplaceAllString(text, "")
	variables := map[string]string{}
	for _, found := range nixAttribute.FindAllStringSubmatch(text, -1) {
		if was, known := variables[found[1]]; known && was != found[2] {
			// Which one is meant is for Nix to tell.
			found[2] = ""
		}
		variables[found[1]] = found[2]
	}
	text = nixInserted.ReplaceAllStringFunc(text, func(inserted string) string {
		return variables[nixInserted.FindStringSubmatch(inserted)[1]]
	})
	for _, set := range nixSet.FindAllString(text, -1) {
		attributes := map[string]string{}
		for _, found := range nixAttribute.FindAllStringSubmatch(set, -1) {
			attributes[found[1]] = found[2]
		}
		p.add(attributes, 0)
	}
}
