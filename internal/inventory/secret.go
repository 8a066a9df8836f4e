package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/secret"
)

// keys looks for private material in a source, and for files that only stand for others.
type keys struct {
	tree    tree
	scanner *secret.Scanner
	public  []string // folders of nixpkgs, in which keys are no secret
	found   []privateFile

	pointers []string // of git LFS, and of git-annex
	annexed  []string
}

// privateFile is a file of a source that everybody would be able to read in the store.
type privateFile struct{ rel, kind string }

// newKeys has found already what t knows to be decrypted, and which links are git-annex's.
func (t tree) newKeys(entries []entry) *keys {
	k := &keys{tree: t, public: publicFolders(entries), scanner: secret.New()}
	if t.checked {
		return k
	}
	for _, e := range entries {
		if e.mode&fs.ModeSymlink == 0 {
			continue
		}
		if target, err := os.Readlink(filepath.Join(t.root, e.rel)); err == nil && isAnnexed(target) {
			k.annexed = append(k.annexed, e.rel)
		}
	}
	for _, f := range t.opened {
		if !within(f.rel, t.public) {
			k.found = append(k.found, f)
		}
	}
	return k
}

// isAnnexed tells whether a link leads to where git-annex has the content of files.
func isAnnexed(target string) bool { return strings.Contains(target, ".git/annex/objects/") }

// read takes the next part of the file rel.
func (k *keys) read(rel string, part []byte, last bool) {
	if k.tree.checked || within(rel, k.tree.public) || k.isPublic(rel) {
		return
	}
	k.pointer(rel, part, last)
	if kind := k.scanner.Read(rel, part, last); kind != "" && last &&
		!slices.ContainsFunc(k.found, func(f privateFile) bool { return f.rel == rel }) {
		k.found = append(k.found, privateFile{rel, kind})
	}
}

// readFile takes all of the file at a path.
func (k *keys) readFile(name, rel string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for part := make([]byte, filePart); ; {
		n, err := io.ReadFull(file, part)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		k.read(rel, part[:n], last)
		if last {
			return nil
		}
	}
}

// filePart is how much of a file is read at once, in bytes.
const filePart = 128 << 10

// maxPointer is how large a pointer of git LFS or git-annex may be, in bytes.
const maxPointer = 32 << 10

// pointer looks whether the file rel, which is all of text if last, is a pointer to what git LFS or git-annex have elsewhere.
func (k *keys) pointer(rel string, text []byte, last bool) {
	switch {
	case !last || len(text) > maxPointer:
	case bytes.HasPrefix(text, []byte("version https://git-lfs.github.com/spec/")) && bytes.Contains(text, []byte("\noid sha256:")):
		k.pointers = append(k.pointers, rel)
	case bytes.HasPrefix(text, []byte("/annex/objects/")):
		k.annexed = append(k.annexed, rel)
	}
}

// tell tells what is deployed as it is, though it only stands for something else.
func (k *keys) tell(note func(string)) {
	if note == nil {
		return
	}
	if len(k.pointers) > 0 {
		note(someOf(k.pointers) + ": not the content but a pointer of git LFS is deployed; git lfs pull fetches the content")
	}
	if len(k.annexed) > 0 {
		note(someOf(k.annexed) + ": not the content but a link of git-annex is deployed; " + annexHint(k.annexed[0]) + " puts the content in its place")
	}
}

// annexHint is what makes a file of what git-annex has.
func annexHint(rel string) string {
	return "git annex get " + run.Quote(rel) + " && git annex unlock " + run.Quote(rel)
}

// someOf names some files, and how many more there are.
func someOf(files []string) string {
	const most = 5
	var names []string
	for _, f := range files[:min(len(files), most)] {
		names = append(names, printable(f))
	}
	text := strings.Join(names, ", ")
	if more := len(files) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// refusal is the error that refuses a source with private material; nil if there is none.
func (k *keys) refusal() error {
	if len(k.found) == 0 {
		return nil
	}
	slices.SortFunc(k.found, func(a, b privateFile) int { return strings.Compare(a.rel, b.rel) })
	e := &Error{Advice: []string{"keep secrets encrypted in the source (agenix, sops-nix), or outside of it",
		"a file that git does not know is not taken: git rm --cached FILE; if everyone may read it, the inventory says so: worldReadable = [ " +
			asNixPath(k.found[0].rel, k.tree.own) + " ];"}}
	what := "private key"
	var names []string
	for _, f := range k.found {
		names = append(names, f.rel)
		e.refused = append(e.refused, f.rel)
		if !strings.Contains(f.kind, "key") {
			what = "private material"
		}
	}
	for i, f := range k.found[:min(len(k.found), 5)] {
		names[i] = printable(f.rel) + " (" + f.kind + ")"
	}
	named, more := names, ""
	if len(named) > 5 {
		named, more = named[:5], fmt.Sprintf(" and %d more", len(named)-5)
	}
	e.Text = "source: " + what + " in " + strings.Join(named, ", ") + more + ": the store is readable for everyone, here and on the target"
	return e
}

// asNixPath is the path rel as it is written in a Nix file in the folder from.
func asNixPath(rel, from string) string {
	shown, err := filepath.Rel(path.Clean("/"+from), "/"+rel)
	if err != nil {
		shown = rel
	}
	if !strings.HasPrefix(shown, "../") {
		shown = "./" + shown
	}
	if strings.Trim(shown, "./_-+abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return "(./. + " + nix.Quote("/"+shown) + ")"
	}
	return shown
}

// within tells whether rel is one of paths, or below one.
func within(rel string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return rel == p || p == "." || strings.HasPrefix(rel, p+"/") })
}

// publicParts are the folders of nixpkgs in which private keys are no secret: its tests and examples have some.
var publicParts = []string{
	"ci", "doc", "lib", "maintainers", "modules", "nixos/doc", "nixos/lib", "nixos/maintainers", "nixos/modules", "nixos/tests", "pkgs", ".github",
}

// publicFolders are those folders of the trees of nixpkgs in a source. What else lies in such a tree is not nixpkgs' own.
func publicFolders(entries []entry) []string {
	marks := []string{"nixos/lib/eval-config.nix", "pkgs/top-level/all-packages.nix"}
	seen := map[string]int{}
	var folders []string
	for _, e := range entries {
		for _, m := range marks {
			folder, is := strings.CutSuffix("/"+e.rel, "/"+m)
			if !is {
				continue
			}
			if seen[folder]++; seen[folder] == len(marks) {
				for _, part := range publicParts {
					folders = append(folders, strings.TrimPrefix(folder+"/"+part, "/"))
				}
			}
		}
	}
	return folders
}

// isPublic tells whether rel is nixpkgs' own. The inventory's folder is not, wherever it is.
func (k *keys) isPublic(rel string) bool {
	if len(k.public) == 0 || !within(rel, k.public) {
		return false
	}
	own := k.tree.own
	return own == "" || own == "." || !within(rel, []string{own})
}
