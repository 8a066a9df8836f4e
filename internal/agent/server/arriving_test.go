package server

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// storeMachine is a machine whose agents have this machine's Nix, and look at the disk where that has its store.
func storeMachine(t *testing.T) *fakeMachine {
	t.Helper()
	m := newMachine(t)
	m.Root = useRealNix(t, m)
	for _, folder := range []string{"/etc", "/run", "/var/lib", "/var/log"} {
		if err := os.MkdirAll(m.Path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// arrivingNames are the names of the paths that are written down: those that come, and those that are in doubt.
func (m *fakeMachine) arrivingNames() (now, doubtful string) {
	m.T.Helper()
	var a struct{ Now, Doubtful []nix.StorePath }
	if text := m.Read(arrivingFile); text != "" {
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			m.T.Fatal(err)
		}
	}
	names := func(paths []nix.StorePath) string {
		var all []string
		for _, p := range paths {
			all = append(all, p.Name())
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	return names(a.Now), names(a.Doubtful)
}

// empty makes a path's file what a power cut leaves of it.
func (m *fakeMachine) empty(i item) {
	m.T.Helper()
	if err := os.Truncate(m.Path(string(i.header.Path)), 0); err != nil {
		m.T.Fatal(err)
	}
}

// TestWhatArrivesIsWrittenDownFirst locks the order: what may come is on the disk before anything comes, what has come before
// that is forgotten and before the bundle is kept.
func TestWhatArrivesIsWrittenDownFirst(t *testing.T) {
	m := storeMachine(t).traced()
	a, b := newItem(t, "a", "small"), newItem(t, "b", "other")
	f := m.connect(locked("s1"))
	f.missing(a, b)
	r := f.request(agent.Request{Method: agent.MethodShip, Root: b.header.Path}, compress(t, stream(t, true, a, b)))
	if r.Error != nil {
		t.Fatal(r.Error)
	}
	m.inOrder([]string{"write " + arrivingFile}, stored, []string{"mkdir " + machine.GCRoots, "link " + machine.GCRoots + "/pending"})
	if m.Exists(arrivingFile) {
		t.Errorf("%s is still there", arrivingFile)
	}
}

// TestWhatAPowerCutLeavesOfAShipIsRead has a ship that is cut off by the end of the power: Nix has registered what it has
// verified, and the files are empty. The next deployment looks, has sent again what it needs, and remembers the rest.
func TestWhatAPowerCutLeavesOfAShipIsRead(t *testing.T) {
	m := storeMachine(t)
	first, whole, other := newItem(t, "first", "first"), newItem(t, "whole", "whole"), newItem(t, "other", "other")
	last := newItem(t, "last", "last", first.header.Path, whole.header.Path)
	f := m.connect(locked("s1"))
	f.missing(first, whole, other, last)
	if r := f.ship(compress(t, stream(t, false, first, whole, other))); r.Error == nil {
		t.Fatal("a stream without an end was taken")
	}
	if now, doubtful := m.arrivingNames(); now != "first last other whole" || doubtful != "" {
		t.Errorf("written down are %q, %q", now, doubtful)
	}
	f.leaves()

	// The power comes back.
	if err := os.Remove(m.Path(bootMark)); err != nil {
		t.Fatal(err)
	}
	m.empty(first)
	m.empty(other)
	look := func(f *ferry) *agent.OnDiskResult {
		t.Helper()
		r, _ := f.ask(agent.Request{Method: agent.MethodOnDisk, Toplevel: last.header.Path})
		if r.Error != nil {
			t.Fatal(r.Error)
		}
		return r.OnDisk
	}
	f = m.connect(locked("s2"))
	if got := f.missing(first, whole, other, last); !slices.Equal(got, []string{"last"}) {
		t.Errorf("missing: %q", got)
	}
	if r := f.ship(compress(t, stream(t, true, last))); r.Error != nil {
		t.Fatal(r.Error)
	}
	if got := look(m.connect(Options{})); len(got.Wrong) != 0 || got.Doubted != 0 {
		t.Errorf("who does not hold the lock has it read: %+v", got)
	}
	got := look(f)
	if len(got.Wrong) != 1 || got.Wrong[0].Path != first.header.Path || got.Wrong[0].Gone || got.Doubted != 2 {
		t.Errorf("the look finds %+v", got)
	}
	if now, doubtful := m.arrivingNames(); now != "" || doubtful != "first other" {
		t.Errorf("written down are %q, %q", now, doubtful)
	}
	if r := f.request(agent.Request{Method: agent.MethodRestore}, compress(t, stream(t, true, first))); r.Error != nil {
		t.Fatal(r.Error)
	}
	if got := m.Read(string(first.header.Path)); got != "first" {
		t.Errorf("it was restored as %q", got)
	}
	if got := look(f); len(got.Wrong) != 0 || got.Doubted != 0 {
		t.Errorf("in the end the look finds %+v", got)
	}
	// Nothing that was deployed needs it; whoever deploys what does has it read.
	if _, doubtful := m.arrivingNames(); doubtful != "other" {
		t.Errorf("in doubt are %q", doubtful)
	}
	f.leaves()
	if err := new(run.Runner).Run(t.Context(), run.Command{Argv: []string{"nix-store", "--delete", string(other.header.Path)}}); err != nil {
		t.Fatal(err)
	}
	look(m.connect(locked("s3")))
	if m.Exists(arrivingFile) {
		t.Errorf("%s is still there: %s", arrivingFile, m.Read(arrivingFile))
	}
}

// TestAShipThatGoesOnIsNotRead has one that is cut off where the power stays: its files are what they were, and are brought to the
// disk before anything is activated, although nothing is left to be shipped.
func TestAShipThatGoesOnIsNotRead(t *testing.T) {
	m := storeMachine(t).traced()
	a := newItem(t, "a", "small")
	f := m.connect(locked("s1"))
	f.missing(a)
	if r := f.ship(compress(t, stream(t, false, a))); r.Error == nil {
		t.Fatal("a stream without an end was taken")
	}
	f.leaves()
	f = m.connect(locked("s1"))
	if got := f.missing(a); got != nil {
		t.Errorf("missing: %q", got)
	}
	if r, _ := f.ask(agent.Request{Method: agent.MethodOnDisk, Toplevel: a.header.Path}); r.Error != nil || r.OnDisk.Doubted != 0 {
		t.Errorf("%+v, %v", r.OnDisk, r.Error)
	}
	m.inOrder([]string{"write " + arrivingFile}, stored)
	if m.Exists(arrivingFile) {
		t.Errorf("%s is still there", arrivingFile)
	}
}
