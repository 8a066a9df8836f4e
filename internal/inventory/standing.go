package inventory

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Relation is how what a node was deployed from stands to what is checked out here.
type Relation string

// The relations.
const (
	Equal        Relation = "equal"          // it is what is checked out
	Behind       Relation = "behind"         // what is checked out goes on from it
	Ahead        Relation = "ahead"          // it goes on from what is checked out
	Diverged     Relation = "diverged"       // each has commits that the other lacks
	NotKnownHere Relation = "unknown"        // this checkout does not have it, or not all of its history
	NotFromGit   Relation = "not comparable" // one of both is not from git
)

// Standing is a Relation in numbers.
type Standing struct {
	Relation Relation
	Behind   int // commits that are checked out here and that it lacks
	Ahead    int // commits that it has and that are not checked out here
}

// Standing finds out how a git revision, a commit's hash or "", stands to what is checked out where the inventory is. What is
// not committed counts on neither side, and of a node whose source is narrowed only commits that change it do.
func (inv *Inventory) Standing(ctx context.Context, node Node, revision string) (Standing, error) {
	head := inv.Source.Revision
	if revision == "" {
		return Standing{Relation: NotFromGit}, nil
	}
	lineage, err := inv.Lineage(ctx, revision)
	switch {
	case err != nil:
		return Standing{}, err
	case lineage == NotComparable:
		return Standing{Relation: NotFromGit}, nil
	case lineage == UnknownCommit, lineage == Shallow:
		return Standing{Relation: NotKnownHere}, nil
	}
	args := []string{"--literal-pathspecs", "rev-list", "--left-right", "--count", revision + "..." + head, "--"}
	if node.narrowed() {
		paths, err := inv.historyOf(node)
		if err != nil {
			return Standing{}, at(node.Name, err)
		}
		args = append(args, paths...)
	}
	out, err := inv.place.git.git(ctx, args...)
	if err != nil {
		return Standing{}, err
	}
	s, err := parseCounts(out)
	if err != nil {
		return Standing{}, &Error{Text: "git work tree " + printable(inv.place.git.root), Err: err}
	}
	return s, nil
}

// parseCounts reads what git rev-list --left-right --count says: what is only left, a tab, and what is only right.
func parseCounts(out string) (Standing, error) {
	left, right, _ := strings.Cut(strings.TrimSpace(out), "\t")
	ahead, err := strconv.Atoi(left)
	behind, behindErr := strconv.Atoi(right)
	if err != nil || behindErr != nil {
		return Standing{}, fmt.Errorf("%q is no answer of git rev-list", out)
	}
	s := Standing{Relation: Diverged, Behind: behind, Ahead: ahead}
	switch {
	case ahead == 0 && behind == 0:
		s.Relation = Equal
	case ahead == 0:
		s.Relation = Behind
	case behind == 0:
		s.Relation = Ahead
	}
	return s, nil
}
