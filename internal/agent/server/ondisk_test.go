package server

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/receive"
	"ferry/internal/nix"
)

// TestWhatIsGoneFromTheDiskIsToldAndPutBack has a Nix that takes paths for valid that are not on the disk.
func TestWhatIsGoneFromTheDiskIsToldAndPutBack(t *testing.T) {
	m := newMachine(t)
	store := useRealNix(t, m)
	// The agent looks at the disk where this Nix has its store.
	m.Root = store
	for _, folder := range []string{"/etc", "/run", "/var/lib", "/var/log"} {
		if err := os.MkdirAll(m.Path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := m.connect(locked("s1"))
	first := newItem(t, "first", "first")
	second := newItem(t, "second", "second", first.header.Path)
	second.header.References = []nix.StorePath{first.header.Path}
	if r := f.ship(compress(t, stream(t, true, first, second))); r.Error != nil {
		t.Fatal(r.Error)
	}
	wrong := func(contents bool) string {
		t.Helper()
		r, _ := f.ask(agent.Request{Method: agent.MethodOnDisk, Toplevel: second.header.Path, Contents: contents})
		if r.Error != nil || r.OnDisk.Paths != 2 || r.OnDisk.More != 0 {
			t.Fatalf("%+v, %v", r.OnDisk, r.Error)
		}
		text, err := json.Marshal(r.OnDisk.Wrong)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	place := func(i item) string { return store.Path(string(i.header.Path)) }
	restore := func(text []byte) agent.Response {
		return f.request(agent.Request{Method: agent.MethodRestore}, compress(t, text))
	}
	if got := wrong(true); got != "null" {
		t.Errorf("at first: %s", got)
	}
	if err := os.Remove(place(first)); err != nil {
		t.Fatal(err)
	}
	for _, contents := range []bool{false, true} {
		if got := wrong(contents); !strings.Contains(got, string(first.header.Path)) || !strings.Contains(got, `"gone":true`) || strings.Contains(got, string(second.header.Path)) {
			t.Errorf("gone: %s", got)
		}
	}
	other := newItem(t, "first", "other")
	for name, c := range map[string]struct {
		text []byte
		says string
	}{
		"another build":           {stream(t, true, other), "is another build than"},
		"another content":         {stream(t, true, item{first.header, newItem(t, "first", "drift").nar}), "has the hash"},
		"a path that is not here": {stream(t, true, newItem(t, "third", "third")), "is not valid on the target"},
		"cut off":                 {stream(t, false, item{first.header, first.nar[:40]}), "stream of paths: "},
	} {
		if r := restore(c.text); r.Error == nil || !strings.Contains(r.Error.Text, c.says) {
			t.Errorf("%s: %v", name, r.Error)
		}
		if store.Exists(string(first.header.Path)) {
			t.Fatalf("%s: it is taken", name)
		}
	}
	// What is there is left as it is.
	if r := restore(stream(t, true, second, first)); r.Error != nil || r.Ship.Registered != 2 {
		t.Errorf("%+v, %v", r.Ship, r.Error)
	}
	if got := wrong(true); got != "null" {
		t.Errorf("at last: %s", got)
	}
	if left, err := filepath.Glob(store.Path("/nix/store/.ferry-*")); err != nil || left != nil {
		t.Errorf("it leaves %q, %v", left, err)
	}
	if err := os.Chmod(place(second), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(place(second), []byte("seconc"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := wrong(false); got != "null" {
		t.Errorf("changed, by its name alone: %s", got)
	}
	if got := wrong(true); !strings.Contains(got, string(second.header.Path)) || !strings.Contains(got, "not what was registered") || strings.Contains(got, string(first.header.Path)) {
		t.Errorf("changed: %s", got)
	}
	unlocked := m.connect(Options{})
	if r := unlocked.request(agent.Request{Method: agent.MethodRestore}, compress(t, stream(t, true, first))); r.Error == nil || r.Error.Kind != agent.KindLocked {
		t.Errorf("without the lock: %v", r.Error)
	}
}

// TestWhatTheDeployedSystemLacksIsSaidAtOnce locks that ferry knows of it before it finds that there is nothing to do.
func TestWhatTheDeployedSystemLacksIsSaidAtOnce(t *testing.T) {
	m := storeMachine(t)
	first := newItem(t, "first", "first")
	bundle := newItem(t, "ferry-pi", "bundle", first.header.Path)
	f := m.connect(locked("s1"))
	if r := f.ship(compress(t, stream(t, true, first, bundle))); r.Error != nil {
		t.Fatal(r.Error)
	}
	f.leaves()
	m.Link(string(bundle.header.Path), currentRoot)
	lacks := func(opts Options) int {
		t.Helper()
		f := m.connect(opts)
		defer f.leaves()
		return f.hello.Facts.Lacking
	}
	if n := lacks(locked("s2")); n != 0 {
		t.Errorf("at first it lacks %d", n)
	}
	if err := receive.Expect(m.Root, []nix.StorePath{bundle.header.Path}); err != nil {
		t.Fatal(err)
	}
	if n := lacks(locked("s2")); n != 0 {
		t.Errorf("what comes in this boot counts: %d", n)
	}
	if err := os.Remove(m.Path(bootMark)); err != nil {
		t.Fatal(err)
	}
	if n := lacks(locked("s2")); n != 1 {
		t.Errorf("of what is in doubt %d count", n)
	}
	if err := os.Remove(m.Path(string(first.header.Path))); err != nil {
		t.Fatal(err)
	}
	if n := lacks(locked("s2")); n != 2 {
		t.Errorf("with one that is gone it lacks %d", n)
	}
	if n := lacks(Options{}); n != 0 {
		t.Errorf("who does not hold the lock looks: %d", n)
	}
}
