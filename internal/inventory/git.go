package inventory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"ferry/internal/checkout"
	"ferry/internal/run"
)

// workTree is a folder of a git work tree. Its zero value is none.
type workTree struct {
	root string // the folder: the work tree's own, as a rule
	tree checkout.Tree
}

// findWorkTree finds the work tree that the absolute folder dir belongs to; ok is false if there is none. A git that is missing or refuses
// the folder is an error and never turns into a snapshot of everything in the folder. Where git itself calls a .git no repository, there is
// none, and note, which may be nil, is told.
func findWorkTree(ctx context.Context, runner *run.Runner, dir string, note func(string)) (tree workTree, ok bool, err error) {
	t, ok, broken, err := checkout.Find(ctx, runner, dir)
	if broken != "" && note != nil {
		note(printable(broken) + " is no git repository: the whole folder is taken, not only the files that git knows")
	}
	return workTree{root: t.Root, tree: t}, ok, ofInventory(err)
}

// in is the folder dir of the same work tree.
func (t workTree) in(dir string) workTree { return workTree{root: dir, tree: t.tree.In(dir)} }

// ofInventory makes an error of git one of the inventory, which is where it has to be mended.
func ofInventory(err error) error {
	var e *checkout.Error
	if !errors.As(err, &e) {
		return err
	}
	return &Error{Text: "git work tree " + printable(e.Root), Err: e.Err, Advice: e.Advice}
}

// git runs git in the work tree and returns its output.
func (t workTree) git(ctx context.Context, args ...string) (string, error) {
	out, err := t.tree.Output(ctx, args...)
	return out, ofInventory(err)
}

// files lists what git knows, intent to add and submodules included, relative to the root, each once. Some may be deleted.
func (t workTree) files(ctx context.Context) ([]string, error) {
	out, err := t.git(ctx, "ls-files", "-z", "--cached", "--recurse-submodules")
	if err != nil {
		return nil, err
	}
	var names []string
	for n := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
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
	if commit, err = t.parseRevision(out); err != nil {
		return "", false, err
	}
	dirty, err = t.differs(ctx, nil)
	return commit, dirty, err
}

var revisionPattern = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)

// parseRevision reads a commit's hash that git has printed. What else it may print with it is no revision: others compare with what is
// written down as one.
func (t workTree) parseRevision(out string) (string, error) {
	commit := strings.TrimSuffix(out, "\n")
	if !revisionPattern.MatchString(commit) {
		return "", &Error{Text: "git work tree " + printable(t.root), Err: fmt.Errorf("git says %q, which is no commit's hash", out)}
	}
	return commit, nil
}

// revisionOf is the last commit before head that has changed any of paths, and whether what git knows of them differs from head.
// The commit is "" if none has.
func (t workTree) revisionOf(ctx context.Context, head string, paths []string) (commit string, dirty bool, err error) {
	out, err := t.git(ctx, append([]string{"--literal-pathspecs", "rev-list", "-1", head, "--"}, paths...)...)
	if err == nil && out != "" {
		commit, err = t.parseRevision(out)
	}
	if err != nil {
		return "", false, err
	}
	dirty, err = t.differs(ctx, paths)
	return commit, dirty, err
}

// differs tells whether a file that git knows, at or below paths if there are any, is not as in the commit that is checked out. Submodules
// are asked each for itself: git would start another one there, which reads what their repositories have configured.
func (t workTree) differs(ctx context.Context, paths []string) (bool, error) {
	status, err := t.git(ctx, append([]string{"--literal-pathspecs", "status", "--porcelain", "-z", "--untracked-files=no", "--no-renames",
		"--ignore-submodules=dirty", "--"}, paths...)...)
	if err != nil || status != "" {
		return status != "", err
	}
	submodules, err := t.submodules(ctx, paths)
	if err != nil {
		return false, err
	}
	for _, dir := range submodules {
		inner, ok, err := findWorkTree(ctx, t.tree.Runner, dir, nil)
		if err != nil {
			return false, err
		}
		if !ok || inner.root != dir {
			continue
		}
		if dirty, err := inner.differs(ctx, nil); err != nil || dirty {
			return dirty, err
		}
	}
	return false, nil
}

// submodules are the folders of the submodules, at or below paths if there are any, that are checked out.
func (t workTree) submodules(ctx context.Context, paths []string) ([]string, error) {
	out, err := t.git(ctx, append([]string{"--literal-pathspecs", "ls-files", "-z", "--stage", "--"}, paths...)...)
	if err != nil {
		return nil, err
	}
	const link = "160000 " // the mode of a commit in a tree
	if !strings.HasPrefix(out, link) && !strings.Contains(out, "\x00"+link) {
		return nil, nil
	}
	var found []string
	for entry := range strings.SplitSeq(out, "\x00") {
		if _, name, ok := strings.Cut(entry, "\t"); ok && strings.HasPrefix(entry, link) {
			dir := filepath.Join(t.root, name)
			if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
				found = append(found, dir)
			}
		}
	}
	return found, nil
}

// addCommand is the command that makes git know the file rel, to be given as advice.
func (t workTree) addCommand(ctx context.Context, rel string) string {
	flag := ""
	if _, err := t.git(ctx, "check-ignore", "--quiet", "--", rel); err == nil {
		flag = "--force "
	}
	return "git add " + flag + run.Quote(filepath.Join(t.root, rel))
}
