// Package status says what runs on nodes, and what there asks for a person: all nodes at once, each as its login user, with no
// lock and no password where the agent is there already. It also asks for a node's generations and for the journal of its
// deployments. Nothing is changed. A node that cannot be asked is no failure of the others: [Node] has the reason.
package status

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/prose"
	"ferry/internal/session"
)

// Attention is how much something on a node asks for a person.
type Attention int

// The degrees.
const (
	Fine    Attention = iota
	Notice            // to be known
	Warning           // should be looked after
	Serious           // something does not work
)

// String is the word for it: nothing, note, warning or error.
func (a Attention) String() string { return []string{"", "note", "warning", "error"}[a] }

// Point is something on a node that asks for attention.
type Point struct {
	Attention Attention
	Text      string
}

// Node is what runs on a node, and how it is there.
type Node struct {
	Node inventory.Node
	// Err is why the node could not be asked; then nothing else is known.
	Err error
	// Facts and Look are what its target says.
	Facts agent.Facts
	More  agent.LookResult
	// Revision is the git revision that what runs was deployed from, Dirty whether there were changes besides, and Standing how it
	// stands to what is checked out here. Deployed is who brought it and when, nil if nobody knows.
	Revision string
	Dirty    bool
	Standing inventory.Standing
	Deployed *agent.JournalEntry
	// Release is NixOS's release that runs; NixpkgsRevision the commit it is from, and NixpkgsDate the day of that.
	Release         string
	NixpkgsRevision string
	NixpkgsDate     time.Time
	// Points are what asks for attention, the most serious first, and Attention is the most serious degree of all, of what has
	// no point of its own too.
	Points    []Point
	Attention Attention
}

// Of looks at all nodes at once and gives what asks most for attention first. A node that cannot be asked is in it, with the
// reason. The error is one of this side.
func Of(ctx context.Context, s session.Session, inv *inventory.Inventory, nodes []inventory.Node) ([]Node, error) {
	list := make([]Node, len(nodes))
	errs := s.Each(ctx, nodes, func(ctx context.Context, s session.Session, i int) error {
		conn, err := s.Ask(ctx, nodes[i], session.Reading)
		if err != nil {
			return err
		}
		defer conn.Close()
		list[i].Facts = conn.Hello.Facts
		list[i].More, err = conn.Look(ctx)
		return err
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	// Most nodes have the same revision, and those with a source of their own stand to it on their own.
	standings := map[string]inventory.Standing{}
	for i := range list {
		s := &list[i]
		s.Node, s.Err = nodes[i], errs[i]
		if s.Err != nil {
			s.Facts, s.More = agent.Facts{}, agent.LookResult{}
		}
		s.readOrigin()
		key := s.Revision
		if s.Node.Source != nil {
			key += " " + s.Node.Name
		}
		standing, known := standings[key]
		if !known {
			var err error
			if standing, err = inv.Standing(ctx, s.Node, s.Revision); err != nil {
				return nil, err
			}
			standings[key] = standing
		}
		s.Standing = standing
		s.attend()
	}
	slices.SortStableFunc(list, func(a, b Node) int {
		return cmp.Or(cmp.Compare(b.Attention, a.Attention), cmp.Compare(a.Node.Name, b.Node.Name))
	})
	return list, nil
}

// readOrigin finds out where what runs is from.
func (s *Node) readOrigin() {
	v := parseNixOSVersion(s.Facts.Version)
	s.Release, s.NixpkgsRevision, s.NixpkgsDate = v.release, v.revision, v.date
	if s.More.NixpkgsRevision != "" && s.Facts.Current == s.Facts.Committed {
		s.NixpkgsRevision = s.More.NixpkgsRevision
		if s.NixpkgsDate.IsZero() && s.More.NixpkgsDate > 0 {
			s.NixpkgsDate = time.Unix(s.More.NixpkgsDate, 0).UTC()
		}
	}
	left, known := session.WhatLeft(s.Facts, s.Facts.Current)
	if known {
		s.Revision, s.Dirty, s.Deployed = left.Revision, left.Dirty, left.Entry
	}
}

// attend finds what asks for attention.
func (s *Node) attend() {
	switch {
	case s.Err != nil:
		text := s.Err.Error()
		if hints := session.HintsOf(s.Err); len(hints) > 0 {
			text += "; " + hints[0]
		}
		s.Points = []Point{{Serious, text}}
	default:
		s.Points = slices.Concat(workPoints(s.Facts, s.More), UnitPoints(s.More), systemPoints(s.Facts, s.More), diskPoints(s.Facts, s.More))
		for _, t := range s.More.Roots {
			s.Points = append(s.Points, Point{Warning, t.Text + "; on the target: " + t.Fix})
		}
	}
	slices.SortStableFunc(s.Points, func(a, b Point) int { return cmp.Compare(b.Attention, a.Attention) })
	switch s.Standing.Relation {
	case inventory.Behind:
		s.Attention = Notice
	case inventory.Ahead, inventory.Diverged, inventory.NotKnownHere:
		s.Attention = Warning
	}
	if s.Deployed == nil {
		s.Attention = max(s.Attention, Notice)
	}
	if len(s.Points) > 0 {
		s.Attention = max(s.Attention, s.Points[0].Attention)
	}
}

// workPoints are about what goes on at a target, and how the last deployment ended.
func workPoints(facts agent.Facts, more agent.LookResult) []Point {
	var points []Point
	switch a := more.Armed; {
	case a != nil && a.Reboot:
		points = append(points, Point{Warning, session.SystemName(a.Toplevel) + " is being tried by a reboot, and is not committed"})
	case a != nil:
		text := "a switch to " + cmp.Or(session.SystemName(a.Toplevel), "another system") + byName(a.Who) + " is " + string(a.Phase)
		if a.Left > 0 {
			text += fmt.Sprintf(": it rolls back in %d s unless it is confirmed", a.Left)
		}
		level := Warning
		if a.Phase == agent.Stranded {
			level, text = Serious, text+": it could not roll back, and keeps trying"
		}
		points = append(points, Point{level, text})
	case more.Lock != nil:
		points = append(points, Point{Notice, session.Locked(more.Lock).Error()})
	}
	if last := facts.Last; last != nil && more.Armed == nil {
		level := map[agent.JournalOutcome]Attention{agent.JournalRolledBack: Warning, agent.JournalFailed: Serious}[last.Outcome]
		if level > Fine {
			text := "the last deployment" + session.ByWhom(last) + " " + map[Attention]string{Warning: "was rolled back", Serious: "failed"}[level]
			if last.Reason != "" {
				text += ": " + last.Reason
			}
			points = append(points, Point{level, text})
		}
		if len(last.UserUnits) > 0 && last.After.Current == facts.Current {
			points = append(points, Point{Notice, "in the last deployment, " + session.UsersUnits(last.UserUnits)})
		}
	}
	return points
}

func byName(who string) string {
	if who == "" {
		return ""
	}
	return " by " + who
}

// UnitsNamed is how many failed units a person is told by name.
const UnitsNamed = 5

func UnitPoints(more agent.LookResult) []Point {
	if more.UnitsError != "" {
		return []Point{{Notice, "failed units are not known: " + more.UnitsError}}
	}
	n := len(more.Failed)
	if n == 0 {
		return nil
	}
	text := prose.Count(n, "unit") + " failed: " + strings.Join(more.Failed[:min(n, UnitsNamed)], ", ")
	if n > UnitsNamed {
		text += fmt.Sprintf(" and %d more", n-UnitsNamed)
	}
	return []Point{{Serious, text}}
}

// systemPoints are about which system runs and which one boots.
func systemPoints(facts agent.Facts, more agent.LookResult) []Point {
	var points []Point
	if facts.Nix == "" {
		points = append(points, Point{Serious, "no working Nix: " + cmp.Or(facts.NixError, "nix-store does not work there")})
	}
	switch {
	case !facts.NixOS:
		points = append(points, Point{Warning, "not a NixOS machine: /etc/NIXOS is missing"})
	case facts.Current == "":
		points = append(points, Point{Warning, "no NixOS system runs: there is no /run/current-system"})
	case facts.Profile == "":
		points = append(points, Point{Warning, "nothing boots: there is no system profile"})
	case facts.Specialisation != "":
		points = append(points, Point{Notice, "runs the specialisation " + facts.Specialisation})
	case facts.Current != facts.Profile:
		text := fmt.Sprintf("the next boot brings another system: generation %d, %s", facts.Generation, session.SystemName(facts.Profile))
		if last := facts.Last; last != nil && last.Outcome == agent.JournalActivated && last.After.Current == facts.Current {
			text = fmt.Sprintf("what runs is only tried%s: generation %d boots, %s", session.ByWhom(last), facts.Generation, session.SystemName(facts.Profile))
		}
		points = append(points, Point{Warning, text})
	}
	if len(more.Reboot) > 0 {
		points = append(points, Point{Warning, "reboot needed: " + strings.Join(more.Reboot, ", ") + " changed since the boot"})
	}
	if _, known := session.WhatLeft(facts, facts.Current); !known && (facts.Last != nil || facts.Bundle != "") && facts.Current != "" {
		points = append(points, Point{Warning, "runs " + session.SystemName(facts.Current) + ", which no deployment of ferry's left there"})
	}
	return points
}

// Scarce is how many bytes of a store are so few that the next deployment may not fit.
const Scarce = 1 << 30

func diskPoints(facts agent.Facts, more agent.LookResult) []Point {
	var points []Point
	switch {
	case facts.StoreFree == 0:
	case facts.StoreFree < session.MinimumFree:
		points = append(points, Point{Serious, fmt.Sprintf("the disk is full: %s free for /nix/store", prose.Size(uint64(facts.StoreFree)))})
	case facts.StoreFree < Scarce && !facts.StoreCompresses:
		points = append(points, Point{Warning, fmt.Sprintf("little room: %s free for /nix/store", prose.Size(uint64(facts.StoreFree)))})
	}
	if err := FitsBoot(facts, more.BootSize); err != nil {
		points = append(points, Point{Warning, err.Error()})
	}
	return points
}

// FitsBoot tells whether kernel and initrd of n bytes together fit into the target's /boot; 0: they need not, or nothing is known.
func FitsBoot(facts agent.Facts, n int64) error {
	if n == 0 || facts.BootFree >= n {
		return nil
	}
	return session.Hint(fmt.Sprintf("/boot is nearly full: %s free, a new kernel and initrd need %s", prose.Size(uint64(facts.BootFree)), prose.Size(uint64(n))),
		"on the target: sudo nix-collect-garbage --delete-older-than 30d, then deploy or sudo /run/current-system/bin/switch-to-configuration boot")
}
