package status

import (
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/session"
)

const (
	someSystem    = "/nix/store/00000000000000000000000000000000-nixos-system-web"
	anotherSystem = "/nix/store/11111111111111111111111111111111-nixos-system-web"
	someBundle    = "/nix/store/22222222222222222222222222222222-ferry-web"
)

// wellStatus is a node where nothing asks for attention: it runs and boots what was deployed last.
func wellStatus() Node {
	entry := &agent.JournalEntry{
		Time: time.Unix(1700000000, 0), Who: "bob@laptop", Action: "switch", Bundle: someBundle, Toplevel: someSystem, Outcome: agent.JournalCommitted,
		After: agent.JournalState{Current: someSystem, Profile: someSystem, Bundle: someBundle},
	}
	return Node{
		Facts: agent.Facts{
			NixOS: true, Nix: "2.18", Current: someSystem, Profile: someSystem, Booted: someSystem, Bundle: someBundle, Committed: someSystem,
			Generation: 7, StoreFree: 1 << 40, BootFree: 1 << 30, Last: entry, LastCommit: entry, Deployed: agent.Manifest{Revision: strings.Repeat("a", 40)},
			Version: "25.05.20250601.b134951",
		},
		Standing: inventory.Standing{Relation: inventory.Equal},
	}
}

// TestWhatAsksForAttention makes one thing after another wrong with a node that is well.
func TestWhatAsksForAttention(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(s *Node)
		attention Attention
		says      string // the beginning of the only point; "": there is none
	}{
		"nothing":             {func(*Node) {}, Fine, ""},
		"cannot be asked":     {func(s *Node) { s.Err = session.Hint("it is gone", "look for it", "or not") }, Serious, "it is gone; look for it"},
		"behind":              {func(s *Node) { s.Standing.Relation = inventory.Behind }, Notice, ""},
		"of somebody's":       {func(s *Node) { s.Standing.Relation = inventory.NotKnownHere }, Warning, ""},
		"units failed":        {func(s *Node) { s.More.Failed = []string{"a", "b"} }, Serious, "2 units failed: a, b"},
		"many units failed":   {func(s *Node) { s.More.Failed = strings.Fields("a b c d e f g") }, Serious, "7 units failed: a, b, c, d, e and 2 more"},
		"units are not known": {func(s *Node) { s.More.UnitsError = "no bus" }, Notice, "failed units are not known: no bus"},
		"reboot":              {func(s *Node) { s.More.Reboot = []string{"kernel", "initrd"} }, Warning, "reboot needed: kernel, initrd changed since the boot"},
		"no Nix":              {func(s *Node) { s.Facts.Nix = "" }, Serious, "no working Nix: nix-store does not work there"},
		"no NixOS":            {func(s *Node) { s.Facts.NixOS = false }, Warning, "not a NixOS machine"},
		"nothing boots":       {func(s *Node) { s.Facts.Profile = "" }, Warning, "nothing boots"},
		"a specialisation": {func(s *Node) {
			s.Facts.Current, s.Facts.Specialisation = anotherSystem, "gaming"
			s.Facts.Last.After.Current = anotherSystem
		}, Notice, "runs the specialisation gaming"},
		"another one boots": {func(s *Node) { s.Facts.Profile = anotherSystem }, Warning, "the next boot brings another system: generation 7, nixos-system-web (1111111…)"},
		"tried": {func(s *Node) {
			s.Facts.Current = anotherSystem
			s.Facts.Last = &agent.JournalEntry{Who: "bob@laptop", Toplevel: anotherSystem, Outcome: agent.JournalActivated, After: agent.JournalState{Current: anotherSystem}}
		}, Warning, "what runs is only tried by bob@laptop on "},
		"rolled back": {func(s *Node) {
			s.Facts.Last = &agent.JournalEntry{Outcome: agent.JournalRolledBack, Reason: "the link is down", After: agent.JournalState{Current: someSystem}}
		}, Warning, "the last deployment on 0001-01-01"},
		"failed": {func(s *Node) {
			s.Facts.Last = &agent.JournalEntry{Outcome: agent.JournalFailed, After: agent.JournalState{Current: someSystem}}
		}, Serious, "the last deployment on "},
		"refused": {func(s *Node) {
			s.Facts.Last = &agent.JournalEntry{Outcome: agent.JournalUnchanged, After: agent.JournalState{Current: someSystem}}
		}, Fine, ""},
		"a full disk":            {func(s *Node) { s.Facts.StoreFree = 1 << 20 }, Serious, "the disk is full: 1.0 MB free"},
		"little room":            {func(s *Node) { s.Facts.StoreFree = 900e6 }, Warning, "little room: 900 MB free for /nix/store"},
		"little, and compressed": {func(s *Node) { s.Facts.StoreFree, s.Facts.StoreCompresses = 900e6, true }, Fine, ""},
		"a full /boot":           {func(s *Node) { s.Facts.BootFree, s.More.BootSize = 20e6, 45e6 }, Warning, "/boot is nearly full: 20 MB free, a new kernel and initrd need 45 MB"},
		"a root":                 {func(s *Node) { s.More.Roots = []agent.Trouble{{Text: "it is gone", Fix: "sudo x"}} }, Warning, "it is gone; on the target: sudo x"},
		"locked":                 {func(s *Node) { s.More.Lock = &agent.Lock{Who: "bob@laptop"} }, Notice, "bob@laptop is deploying to this target"},
		"armed": {func(s *Node) {
			s.More.Armed = &agent.Armed{Toplevel: someSystem, Who: "bob@laptop", Phase: agent.Waiting, Left: 42}
		}, Warning, "a switch to nixos-system-web (0000000…) by bob@laptop is waiting: it rolls back in 42 s"},
		"a trial": {func(s *Node) { s.More.Armed = &agent.Armed{Toplevel: someSystem, Reboot: true} }, Warning, "nixos-system-web (0000000…) is being tried by a reboot"},
		"nobody of ferry's was it": {func(s *Node) {
			s.Facts.Current, s.Facts.Profile = anotherSystem, anotherSystem
		}, Warning, "runs nixos-system-web (1111111…), which no deployment of ferry's left there"},
		"ferry was never there": {func(s *Node) {
			s.Facts.Bundle, s.Facts.Committed, s.Facts.Last, s.Facts.LastCommit = "", "", nil, nil
		}, Notice, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := wellStatus()
			c.change(&s)
			s.readOrigin()
			s.attend()
			if s.Attention != c.attention {
				t.Errorf("%v, want %v", s.Attention, c.attention)
			}
			switch {
			case c.says == "" && len(s.Points) == 0:
			case len(s.Points) != 1 || c.says == "" || !strings.HasPrefix(s.Points[0].Text, c.says):
				t.Errorf("%+v, want %q", s.Points, c.says)
			}
		})
	}
}

// TestWhatRunsIsKnownByWhoBroughtIt tells the origin of what runs, not of what boots.
func TestWhatRunsIsKnownByWhoBroughtIt(t *testing.T) {
	s := wellStatus()
	s.More.NixpkgsRevision = strings.Repeat("c", 40)
	s.readOrigin()
	if s.Deployed != s.Facts.LastCommit || s.Revision != strings.Repeat("a", 40) || s.Release != "25.05" || s.NixpkgsRevision != strings.Repeat("c", 40) || s.NixpkgsDate.IsZero() {
		t.Errorf("committed: %+v", s)
	}
	tried := wellStatus()
	tried.Facts.Current, tried.More.NixpkgsRevision = anotherSystem, strings.Repeat("c", 40)
	tried.Facts.Last = &agent.JournalEntry{Toplevel: anotherSystem, Revision: "bbbbbbb", Dirty: true, Outcome: agent.JournalActivated, After: agent.JournalState{Current: anotherSystem}}
	tried.readOrigin()
	if tried.Deployed != tried.Facts.Last || tried.Revision != "bbbbbbb" || !tried.Dirty || tried.NixpkgsRevision != "b134951" {
		t.Errorf("tried: %+v", tried)
	}
}

// TestNixpkgsIsOfADay that its version says, or else the bundle's pin, which says nothing of a system that is only tried.
func TestNixpkgsIsOfADay(t *testing.T) {
	june, july := time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC), time.Date(2025, 7, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		version string
		current string
		want    time.Time
	}{
		"of its version's": {"25.05.20250601.b134951", someSystem, june},
		"of its pin's":     {"25.05pre-git", someSystem, july},
		"of none":          {"25.05pre-git", anotherSystem, time.Time{}},
	} {
		s := wellStatus()
		s.Facts.Version, s.Facts.Current, s.More.NixpkgsDate, s.More.NixpkgsRevision = c.version, c.current, july.Unix(), strings.Repeat("c", 40)
		if s.readOrigin(); !s.NixpkgsDate.Equal(c.want) {
			t.Errorf("%s: %v", name, s.NixpkgsDate)
		}
	}
}
