// Package checkout runs git in a checkout that nobody vouches for. Every git process that ferry starts is started here.
//
// A repository's configuration can name programs: filters, file system monitors, ssh, gpg, hooks, pagers, helpers of remotes. None of
// it is read here but to find the repository. Then git is given a configuration of ferry's instead, which has only settings that say
// how the repository and its work tree are stored. Where that ends, the user's own configuration and the system's go on: what they
// name is the user's word. Nothing is fetched, nothing is written to the repository, and of the environment's variables of git only
// those are passed on that say where git and its configuration are.
package checkout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/run"
)

// Tree is a folder in a git work tree.
type Tree struct {
	Root string // the work tree's root
	Dir  string // the folder; the files that git names are relative to it

	Runner *run.Runner // what starts git

	gitDir string // the repository, as far as it is this work tree's
	common string // the repository, as far as it is all its work trees'
	config string // what git reads instead of the repository's configuration
	// attributes is the file of attributes that a configuration names, or "".
	attributes string
}

// Error is a repository that git cannot be asked about.
type Error struct {
	Root   string // the work tree, or the folder that git was to find it of
	Advice []string
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("git work tree %q: %v", e.Root, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hints says what the user can do about it.
func (e *Error) Hints() []string { return e.Advice }

// Find finds the work tree that the absolute folder dir belongs to, and gives its root; found is false if there is none. broken is then
// a .git on the way up, if there is one, that git calls no repository. A git that is missing, or that refuses the folder, is an [*Error]:
// it is not known then which files belong to what is in the folder.
func Find(ctx context.Context, runner *run.Runner, dir string) (tree Tree, found bool, broken string, err error) {
	candidates, err := withGit(dir)
	if err != nil || len(candidates) == 0 {
		return Tree{}, false, "", err
	}
	t := Tree{Root: candidates[0], Dir: dir, Runner: runner}
	places, err := t.ask(ctx, "--absolute-git-dir", "--git-common-dir", "--show-toplevel")
	var failed *run.Error
	if errors.As(err, &failed) && failed.Status == 128 && isNone(failed.Stderr) {
		return Tree{}, false, filepath.Join(candidates[0], ".git"), nil
	}
	if err != nil {
		return Tree{}, false, "", err
	}
	t.gitDir, t.common = places[0], places[1]
	if !filepath.IsAbs(t.common) {
		t.common = filepath.Join(dir, t.common)
	}
	if t.Root, err = rootOf(candidates, t.gitDir, places[2]); err != nil {
		return Tree{}, false, "", err
	}
	if t.config, t.attributes, err = t.harmless(ctx); err != nil {
		return Tree{}, false, "", err
	}
	return t.In(t.Root), true, "", nil
}

// withGit are the folders from dir upwards that have a .git.
func withGit(dir string) ([]string, error) {
	var found []string
	for d := dir; ; d = filepath.Dir(d) {
		_, err := os.Lstat(filepath.Join(d, ".git"))
		switch {
		case err == nil:
			found = append(found, d)
		case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission):
			return nil, err
		}
		if filepath.Dir(d) == d {
			return found, nil
		}
	}
}

// isNone tells whether git has said that there is no repository, which is not the same as one that it cannot or will not use.
func isNone(stderr string) bool {
	return slices.ContainsFunc(strings.Split(stderr, "\n"), func(line string) bool {
		return strings.HasPrefix(line, "fatal: not a git repository") || strings.HasPrefix(line, "fatal: invalid gitfile format")
	})
}

// rootOf is that of candidates whose .git is gitDir. Git has to call it the work tree's root as well: the repository's configuration can
// make any other folder that, and any file of this machine part of it.
func rootOf(candidates []string, gitDir, top string) (string, error) {
	real, err := filepath.EvalSymlinks(gitDir)
	if err != nil {
		return "", err
	}
	for _, root := range candidates {
		entry := filepath.Join(root, ".git")
		info, err := os.Stat(entry)
		if err != nil {
			continue
		}
		if at, err := filepath.EvalSymlinks(entry); info.IsDir() && (err != nil || at != real) {
			// Git has looked further up.
			continue
		}
		mine, err := filepath.EvalSymlinks(root)
		if err != nil {
			return "", err
		}
		if top != mine {
			return "", &Error{Root: root, Err: fmt.Errorf("git takes it for a part of %q", top),
				Advice: []string{"its setting core.worktree says so: git -C " + run.Quote(root) + " config --unset core.worktree"}}
		}
		return root, nil
	}
	return "", &Error{Root: candidates[0], Err: fmt.Errorf("git takes %q for its repository", gitDir)}
}

// ask asks git rev-parse for values. What git reads for that of the repository's configuration names no programs.
func (t Tree) ask(ctx context.Context, what ...string) ([]string, error) {
	out, err := t.start(ctx, command{args: append([]string{"rev-parse"}, what...)})
	if err != nil {
		return nil, err
	}
	if values := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"); len(values) == len(what) {
		return values, nil
	}
	// One of them has a newline in it.
	var values []string
	for _, w := range what {
		out, err := t.start(ctx, command{args: []string{"rev-parse", w}})
		if err != nil {
			return nil, err
		}
		values = append(values, strings.TrimSuffix(string(out), "\n"))
	}
	return values, nil
}

// In is the folder dir of the same work tree.
func (t Tree) In(dir string) Tree {
	t.Dir = dir
	return t
}

// Attributes are the files outside of the work tree that say which attributes its files have, as far as git's settings name them. They need
// not be there.
func (t Tree) Attributes() []string {
	files := []string{filepath.Join(t.common, "info/attributes")}
	if t.attributes != "" {
		files = append(files, t.attributes)
	}
	return files
}

// Output runs git in the folder and returns its output. args must be a command that reads; its failure is an [*Error] that wraps a
// [*run.Error].
func (t Tree) Output(ctx context.Context, args ...string) (string, error) {
	return t.Ask(ctx, nil, args...)
}

// Ask is Output of a command that reads in.
func (t Tree) Ask(ctx context.Context, in io.Reader, args ...string) (string, error) {
	common, err := t.shadow()
	if err != nil {
		return "", &Error{Root: t.Root, Err: fmt.Errorf("make a folder for git's settings: %w", err)}
	}
	defer os.RemoveAll(common)
	out, err := t.start(ctx, command{args: args, in: in, env: []string{
		"GIT_DIR=" + t.gitDir, "GIT_COMMON_DIR=" + common, "GIT_WORK_TREE=" + t.Root,
	}})
	return string(out), err
}

// command is one git command.
type command struct {
	args, env []string
	in        io.Reader
}

// start runs git, and says what is to be done about the usual failures.
func (t Tree) start(ctx context.Context, c command) ([]byte, error) {
	var out bytes.Buffer
	argv := slices.Concat([]string{"git", "-C", t.Dir}, settings(), c.args)
	err := t.Runner.Run(ctx, run.Command{Argv: argv, Env: append(environment(), c.env...), Without: withheld, In: c.in, Out: &out})
	if err == nil {
		return out.Bytes(), nil
	}
	e := &Error{Root: t.Root, Err: err}
	var failed *run.Error
	switch {
	case run.NotFound(err):
		e.Err = &missingError{err}
		e.Advice = []string{"install git"}
	case errors.As(err, &failed) && strings.Contains(failed.Stderr, "dubious ownership"):
		e.Err = errors.New("git refuses it, because it belongs to another user")
		e.Advice = []string{"git config --global --add safe.directory " + run.Quote(t.Root)}
	}
	return nil, e
}

// missingError means that git is not installed.
type missingError struct{ err error }

func (e *missingError) Error() string {
	return "git is not installed, and only git knows which of its files belong to it"
}
func (e *missingError) Unwrap() error { return e.err }

// settings are of no use here, whoever has made them.
func settings() []string {
	return []string{"-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false"}
}

// environment keeps git from fetching what a partial clone lacks, from asking anybody, and from writing.
func environment() []string {
	return []string{
		"GIT_OPTIONAL_LOCKS=0", "LC_ALL=C", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=", "GIT_TERMINAL_PROMPT=0", "GIT_PAGER=cat",
	}
}

// withheld tells which variables of the environment git does not get: all of its own but those that say where git is, where the user's
// configuration is, and where to look for a work tree.
func withheld(name string) bool {
	return strings.HasPrefix(name, "GIT_") && !slices.Contains([]string{
		"GIT_EXEC_PATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES",
		"GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_TEST_ASSUME_DIFFERENT_OWNER",
	}, name)
}

// Diff writes to out how two folders differ that belong to no work tree, as a unified diff. Nothing that anybody has configured
// counts.
func Diff(ctx context.Context, runner *run.Runner, a, b string, out io.Writer) error {
	argv := slices.Concat([]string{"git"}, settings(), []string{"diff", "--no-index", "--no-color", "--no-ext-diff", "--no-textconv",
		"--src-prefix=a/", "--dst-prefix=b/", "--", a, b})
	err := runner.Run(ctx, run.Command{
		Argv: argv, Dir: "/", Out: out, Without: withheld,
		// Without a repository, even if there is one in /.
		Env: append(environment(), "GIT_DIR=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"),
	})
	var failed *run.Error
	if errors.As(err, &failed) && failed.Status == 1 {
		// They differ.
		return nil
	}
	return err
}
