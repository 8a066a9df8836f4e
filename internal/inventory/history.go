package inventory

import (
	"context"
	"errors"
	"strings"

	"ferry/internal/run"
)

// Lineage is how a git revision stands to what is checked out.
type Lineage string

// The lineages.
const (
	NotComparable Lineage = "not comparable" // the inventory is not in git, or has no commit yet
	Ancestor      Lineage = "ancestor"       // it is checked out, or what is checked out goes back to it
	Divergent     Lineage = "divergent"      // it is in the repository, and not in the history of what is checked out
	Shallow       Lineage = "shallow"        // it is not in that history, which is cut off at some depth
	UnknownCommit Lineage = "unknown"        // it is not in the repository
)

// Lineage finds out how revision, a commit's hash, stands to what is checked out where the inventory is.
func (inv *Inventory) Lineage(ctx context.Context, revision string) (Lineage, error) {
	if inv.place.git == nil || inv.Source.Revision == "" {
		return NotComparable, nil
	}
	return inv.place.git.lineage(ctx, revision, inv.Source.Revision)
}

func (t workTree) lineage(ctx context.Context, revision, head string) (Lineage, error) {
	if strings.Trim(revision, "0123456789abcdef") != "" || len(revision) < 7 {
		return "", &Error{Text: "git work tree " + printable(t.root), Err: errors.New(printable(revision) + " is no revision")}
	}
	has, err := t.tells(ctx, "cat-file", "-e", revision+"^{commit}")
	if err != nil {
		return "", err
	}
	if has {
		if yes, err := t.tells(ctx, "merge-base", "--is-ancestor", revision, head); err != nil || yes {
			return Ancestor, err
		}
	}
	out, err := t.git(ctx, "rev-parse", "--is-shallow-repository")
	switch {
	case err != nil:
		return "", err
	case strings.TrimSpace(out) == "true":
		return Shallow, nil
	case has:
		return Divergent, nil
	}
	return UnknownCommit, nil
}

// tells runs a command of git's that answers with its exit status. 128 is git's for what it does not have.
func (t workTree) tells(ctx context.Context, args ...string) (bool, error) {
	_, err := t.git(ctx, args...)
	var command *run.Error
	if errors.As(err, &command) && (command.Status == 1 || command.Status == 128) {
		return false, nil
	}
	return err == nil, err
}
