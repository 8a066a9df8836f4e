package verify

import (
	"cmp"
	"context"
	"fmt"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/prose"
	"ferry/internal/session"
)

// Contents is how what is on a target's disk compares with what its Nix has registered of the deployed system.
type Contents struct {
	Node string `json:"node"`
	// Root is what was looked at, with all that it needs: the deployed bundle, or the system of a target that has none.
	Root  nix.StorePath `json:"root"`
	Paths int           `json:"paths"` // that were looked at
	Wrong []WrongPath   `json:"wrong"` // those that are not as registered
	More  int           `json:"more"`  // how many are wrong besides those in Wrong
}

// WrongPath is a path that is not on a target's disk as its Nix has registered it.
type WrongPath struct {
	Path   nix.StorePath `json:"path"`
	Gone   bool          `json:"gone"`
	Reason string        `json:"reason"`
}

// Whole tells whether all is as registered.
func (c *Contents) Whole() bool { return len(c.Wrong) == 0 }

// OnDisk has a node's target read all that the deployed system needs, and compare it with the hashes that its Nix has
// registered. Nothing is changed. A failure is an [*session.Error]; paths that are wrong are none.
func OnDisk(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node) (*Contents, error) {
	visit, err := with.Visit(inv, node, session.Reading)
	if err != nil {
		return nil, err
	}
	defer visit.Close()
	facts, err := visit.Reach(ctx)
	if err != nil {
		return nil, err
	}
	c := &Contents{Node: node.Name, Root: nix.StorePath(cmp.Or(facts.Bundle, facts.Profile)), Wrong: []WrongPath{}}
	if c.Root == "" {
		return nil, visit.Fail(session.Connect, session.Unchanged, session.Hint("nothing was deployed to the target, and it has no system"))
	}
	err = visit.Link.Do(ctx, func(conn *agent.Session) error {
		got, err := conn.OnDisk(ctx, c.Root, true)
		if err != nil {
			return err
		}
		c.Paths, c.More = got.Paths, got.More
		for _, w := range got.Wrong {
			if w.Gone {
				w.Reason = "it is gone"
			}
			c.Wrong = append(c.Wrong, WrongPath{Path: w.Path, Gone: w.Gone, Reason: w.Reason})
		}
		return nil
	})
	if err != nil {
		return nil, visit.Fail(session.Connect, session.Unchanged, err)
	}
	return c, nil
}

// DamagedError is a target whose store is not what its Nix has registered.
type DamagedError struct{ *Contents }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s: verify: %d of the %s of the deployed system: damaged on the target's disk", e.Node, len(e.Wrong)+e.More, prose.Count(e.Paths, "path"))
}

// Hints says what the user can do about it.
func (e *DamagedError) Hints() []string {
	if len(e.Wrong) == 0 {
		return nil
	}
	return []string{
		"on the target, if one of its caches has them: sudo nix-store --repair-path " + string(e.Wrong[0].Path) + ", or all: sudo nix-store --verify --check-contents --repair",
		"a deployment of a changed configuration puts back what is gone; look at that machine's disk",
	}
}
