package checkout

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// stored are the settings that say how a repository and its work tree are stored. None names a program, a file or another machine.
var stored = []string{
	"core.repositoryformatversion", "core.filemode", "core.symlinks", "core.ignorecase", "core.precomposeunicode", "core.protecthfs",
	"core.protectntfs", "core.autocrlf", "core.eol", "core.trustctime", "core.checkstat", "core.sparsecheckout", "core.sparsecheckoutcone",
	"core.bigfilethreshold", "index.sparse", "extensions.objectformat", "extensions.compatobjectformat", "extensions.refstorage",
	"submodule.active",
}

// isStored tells whether a setting is kept. The name is as git lists it: section and variable are in lower case.
func isStored(name string) bool {
	if slices.Contains(stored, name) {
		return true
	}
	// Which submodules belong to the work tree.
	rest, submodule := strings.CutPrefix(name, "submodule.")
	return submodule && (strings.HasSuffix(rest, ".active") || strings.HasSuffix(rest, ".url"))
}

// harmless is a configuration with what of the repository's is kept, and the file of attributes that is configured. To list settings
// starts nothing.
func (t Tree) harmless(ctx context.Context) (config, attributes string, err error) {
	out, err := t.start(ctx, command{args: []string{"config", "--list", "-z"}})
	if err != nil {
		return "", "", err
	}
	var b strings.Builder
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		name, value, given := strings.Cut(entry, "\n")
		if name == "core.attributesfile" {
			attributes = value
			if below, home := strings.CutPrefix(value, "~/"); home {
				dir, _ := os.UserHomeDir()
				attributes = filepath.Join(dir, below)
			}
		}
		if !isStored(name) {
			continue
		}
		if strings.HasSuffix(name, ".url") {
			// That there is one is what counts.
			value = "."
		}
		section, rest, _ := strings.Cut(name, ".")
		b.WriteString("[" + section)
		if i := strings.LastIndexByte(rest, '.'); i >= 0 {
			b.WriteString(` "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(rest[:i]) + `"`)
			rest = rest[i+1:]
		}
		b.WriteString("]\n\t" + rest)
		if given {
			b.WriteString(` = "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`, "\b", `\b`).Replace(value) + `"`)
		}
		b.WriteString("\n")
	}
	return b.String(), attributes, nil
}

// shared is what the work trees of a repository share and is needed to read it. Neither its configuration nor its hooks are.
var shared = []string{"HEAD", "info", "objects", "packed-refs", "refs", "reftable", "shallow"}

// shadow makes a folder that looks to git as the shared part of the repository, with another configuration. The caller removes it.
func (t Tree) shadow() (string, error) {
	// A folder in memory that is the user's own, where there is one: a full disk is no reason not to read.
	dir, err := os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "ferry-git-")
	if err != nil {
		dir, err = os.MkdirTemp("", "ferry-git-")
	}
	if err != nil {
		return "", err
	}
	err = os.WriteFile(filepath.Join(dir, "config"), []byte(t.config), 0o600)
	for _, name := range shared {
		from := filepath.Join(t.common, name)
		if _, missing := os.Lstat(from); errors.Is(missing, fs.ErrNotExist) {
			continue
		}
		err = errors.Join(err, os.Symlink(from, filepath.Join(dir, name)))
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}
