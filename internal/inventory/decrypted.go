package inventory

import (
	"bytes"
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// decrypted are the files that git has encrypted and that lie open in the work tree: git-crypt, git-agecrypt, transcrypt and others of
// their kind are filters, which git applies when it reads and writes the work tree. What the filter is called tells most of them, and what
// git has of the file the others.
func (t tree) decrypted(ctx context.Context, entries []entry) ([]privateFile, error) {
	if t.git == nil || t.checked {
		return nil, nil
	}
	var files []string
	filters := t.git.mentionsFilter(entries)
	for _, e := range entries {
		if e.mode.IsRegular() && e.size > 0 {
			files = append(files, e.rel)
		}
	}
	if !filters {
		return nil, nil
	}
	return t.git.decrypted(ctx, files)
}

// mentionsFilter tells whether any file of attributes that counts in the work tree, be it known to git or not, may name a filter.
func (t workTree) mentionsFilter(entries []entry) bool {
	home, _ := os.UserHomeDir()
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(home, ".config")
	}
	files := append(t.tree.Attributes(), filepath.Join(config, "git/attributes"), "/etc/gitattributes")
	for dir := t.root; ; dir = filepath.Dir(dir) {
		files = append(files, filepath.Join(dir, ".gitattributes"))
		if dir == t.tree.Root || dir == filepath.Dir(dir) {
			break
		}
	}
	for _, e := range entries {
		if e.mode.IsDir() {
			files = append(files, filepath.Join(t.root, e.rel, ".gitattributes"))
			// A submodule has a repository of its own, with attributes perhaps.
			if _, err := os.Lstat(filepath.Join(t.root, e.rel, ".git")); err == nil {
				return true
			}
		}
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte("filter")) {
			return true
		}
	}
	return false
}

// decrypted are those of files, relative to the folder, that are decrypted. Each submodule is asked for itself.
func (t workTree) decrypted(ctx context.Context, files []string) ([]privateFile, error) {
	var found []privateFile
	submodules, err := t.submodules(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, dir := range submodules {
		prefix, err := filepath.Rel(t.root, dir)
		if err != nil {
			return nil, err
		}
		inner, ok, err := findWorkTree(ctx, t.tree.Runner, dir, nil)
		if err != nil {
			return nil, err
		}
		if !ok || inner.root != dir {
			continue
		}
		var own, others []string
		for _, f := range files {
			if below, is := strings.CutPrefix(f, prefix+"/"); is {
				own = append(own, below)
			} else {
				others = append(others, f)
			}
		}
		files = others
		below, err := inner.decrypted(ctx, own)
		if err != nil {
			return nil, err
		}
		for _, f := range below {
			found = append(found, privateFile{path.Join(prefix, f.rel), f.kind})
		}
	}
	filtered, err := t.filtered(ctx, files)
	if err != nil {
		return nil, err
	}
	for _, f := range filtered {
		head, err := headOf(filepath.Join(t.root, f.rel))
		if err != nil {
			return nil, err
		}
		if len(head) == 0 || isEncrypted(head) {
			continue
		}
		if !encrypting.MatchString(f.kind) {
			blob, err := t.blobHead(ctx, f.rel)
			if err != nil || !isEncrypted(blob) {
				continue
			}
		}
		found = append(found, privateFile{f.rel, "decrypted by the filter " + printable(f.kind)})
	}
	return found, nil
}

// encrypting are the filters whose name says what they do.
var encrypting = regexp.MustCompile(`(?i)crypt|^age\b|agebox|sops|vault|secret|strongbox|gpg`)

// filtered are those of files that git passes through a filter, whose name is their kind. git-lfs and git-annex keep content elsewhere,
// and encrypt nothing.
func (t workTree) filtered(ctx context.Context, files []string) ([]privateFile, error) {
	if len(files) == 0 {
		return nil, nil
	}
	in := strings.NewReader(strings.Join(files, "\x00") + "\x00")
	out, err := t.tree.Ask(ctx, in, "check-attr", "-z", "--stdin", "filter")
	if err != nil {
		return nil, ofInventory(err)
	}
	var found []privateFile
	words := strings.Split(out, "\x00")
	for i := 0; i+2 < len(words); i += 3 {
		switch name := words[i+2]; name {
		case "unspecified", "unset", "set", "", "lfs", "annex":
		default:
			found = append(found, privateFile{words[i], name})
		}
	}
	return found, nil
}

// formHead is how much of a file tells whether it is encrypted, in bytes.
const formHead = 4 << 10

func headOf(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, formHead))
}

// blobHead is how what git has of the file rel begins.
func (t workTree) blobHead(ctx context.Context, rel string) ([]byte, error) {
	out, err := t.git(ctx, "--literal-pathspecs", "ls-files", "-z", "--stage", "--", rel)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(out)
	if len(fields) < 2 || !revisionPattern.MatchString(fields[1]) {
		return nil, nil
	}
	blob, err := t.git(ctx, "cat-file", "blob", fields[1])
	return []byte(blob[:min(len(blob), formHead)]), err
}

// isEncrypted tells whether a file that begins with head is encrypted, in one of the forms that filters use.
func isEncrypted(head []byte) bool {
	for _, begin := range []string{
		"\x00GITCRYPT\x00", "age-encryption.org/v1", "-----BEGIN AGE ENCRYPTED FILE-----", "Salted__", "U2FsdGVkX1", "$ANSIBLE_VAULT;",
		"-----BEGIN PGP MESSAGE-----", "# STRONGBOX ENCRYPTED", "\x85\x01", "\x85\x02", "\x85\x04", "\x84", "\x8c\x0d",
	} {
		if bytes.HasPrefix(head, []byte(begin)) {
			return true
		}
	}
	return bytes.Contains(head, []byte("ENC[AES256_GCM,"))
}
