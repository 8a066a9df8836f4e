package inventory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ferry/internal/run"
)

// workTree is a git work tree. Its zero value is none.
type workTree struct {
	root   string
	runner *run.Runner
}

// findWorkTree finds the work tree that the absolute folder dir belongs to; ok is false if there is none. It looks for
// .git itself instead of asking git, so that a git that is missing or refuses the folder is an error and never turns into
// a snapshot of everything in the folder.
func findWorkTree(runner *run.Runner, dir string) (tree workTree, ok bool, err error) {
	for d := dir; ; d = filepath.Dir(d) {
		_, err := os.Lstat(filepath.Join(d, ".git"))
		switch {
		case err == nil:
			return workTree{root: d, runner: runner}, true, nil
		case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission):
			return workTree{}, false, err
		case filepath.Dir(d) == d:
			return workTree{}, false, nil
		}
	}
}

// git runs git in the work tree and returns its output.
func (t workTree) git(ctx context.Context, args ...string) (string, error) {
	// A file system monitor is a program that the repository names; nothing here needs one.
	argv := append([]string{"git", "-C", t.root, "-c", "core.fsmonitor=false", "-c", "core.quotePath=false"}, args...)
	out, err := t.runner.Output(ctx, run.Command{Argv: argv, Env: []string{"GIT_OPTIONAL_LOCKS=0", "LC_ALL=C"}})
	if err == nil {
		return string(out), nil
	}
	e := &Error{Text: "git work tree " + printable(t.root), Err: err}
	var command *run.Error
	switch {
	case run.NotFound(err):
		e.Err = errors.New("git is not installed, and only git knows which of its files belong to it")
		e.Advice = []string{"install git"}
	case errors.As(err, &command) && strings.Contains(command.Stderr, "dubious ownership"):
		e.Err = errors.New("git refuses it, because it belongs to another user")
		e.Advice = []string{"git config --global --add safe.directory " + run.Quote(t.root)}
	}
	return "", e
}

// check makes sure that git means the same work tree as ferry; a GIT_DIR in the environment can make it mean another.
func (t workTree) check(ctx context.Context) error {
	out, err := t.git(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	top := strings.TrimSuffix(out, "\n")
	mine, err := filepath.EvalSymlinks(t.root)
	if err != nil {
		return err
	}
	if top != mine {
		return &Error{Text: fmt.Sprintf("git takes %s for a part of %s", printable(mine), printable(top)),
			Advice: []string{"unset GIT_DIR and GIT_WORK_TREE"}}
	}
	return nil
}

// files lists what git knows, intent to add and submodules included, relative to the root, each once. Some may be deleted.
func (t workTree) files(ctx context.Context) ([]string, error) {
	out, err := t.git(ctx, "ls-files", "-z", "--cached", "--recurse-submodules")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range strings.Split(strings.TrimSuffix(out, "\x00"), "\x00") {
		// A file in the middle of a merge is listed once per side.
		if n != "" && (len(names) == 0 || names[len(names)-1] != n) {
			names = append(names, n)
		}
	}
	return names, nil
}

// knows tells whether git knows the file rel.
func (t workTree) knows(ctx context.Context, rel string) (bool, error) {
	out, err := t.git(ctx, "ls-files", "-z", "--cached", "--", rel)
	return out != "", err
}

// revision is the commit that is checked out and whether a file git knows differs from it. A repository without a commit
// has revision "".
func (t workTree) revision(ctx context.Context) (commit string, dirty bool, err error) {
	out, err := t.git(ctx, "rev-parse", "--verify", "--quiet", "HEAD")
	var command *run.Error
	if errors.As(err, &command) && command.Status == 1 {
		return "", true, nil
	}
	if err != nil {
		return "", false, err
	}
	status, err := t.git(ctx, "status", "--porcelain", "-z", "--untracked-files=no")
	if err != nil {
		return "", false, err
	}
	return strings.TrimSpace(out), status != "", nil
}

// revisionOf is the last commit before head that has changed any of paths, and whether what git knows of them differs from head.
// The commit is "" if none has.
func (t workTree) revisionOf(ctx context.Context, head string, paths []string) (commit string, dirty bool, err error) {
	out, err := t.git(ctx, append([]string{"--literal-pathspecs", "log", "-1", "--format=%H", head, "--"}, paths...)...)
	if err != nil {
		return "", false, err
	}
	status, err := t.git(ctx, append([]string{"--literal-pathspecs", "status", "--porcelain", "-z", "--untracked-files=no", "--"}, paths...)...)
	return strings.TrimSpace(out), status != "", err
}

// addCommand is the command that makes git know the file rel, to be given as advice.
func (t workTree) addCommand(ctx context.Context, rel string) string {
	flag := ""
	if _, err := t.git(ctx, "check-ignore", "--quiet", "--", rel); err == nil {
		flag = "--force "
	}
	return "git add " + flag + run.Quote(filepath.Join(t.root, rel))
}
