package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"

	"golang.org/x/sys/unix"
)

// unwritable are places where the link in /etc/nixos cannot be made, by what makes a machine so.
var unwritable = map[string]func(m *fakeMachine){
	"a link to a folder that is not there": func(m *fakeMachine) {
		_ = os.RemoveAll(m.Path("/etc/nixos"))
		m.Link("persisted/nixos", "/etc/nixos")
	},
	"a file": func(m *fakeMachine) {
		_ = os.RemoveAll(m.Path("/etc/nixos"))
		m.Write("/etc/nixos", "")
	},
	"a folder in the place of the link": func(m *fakeMachine) {
		_ = os.Remove(m.Path(currentConfiguration))
		m.Write(currentConfiguration+"/configuration.nix", "{ }")
	},
}

// TestACommitNeedsNoLinkInEtcNixos locks that the bundle is kept, and known, where the link to it cannot be made.
func TestACommitNeedsNoLinkInEtcNixos(t *testing.T) {
	for name, spoil := range unwritable {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			spoil(m)
			r, log := m.connect(locked("s1")).ask(commitment("boot"))
			if r.Error != nil || r.Commit.Status != 0 || r.Commit.Error != "" || r.Commit.Generation != 2 {
				t.Fatalf("%+v, %v", r.Commit, r.Error)
			}
			if !strings.Contains(log, "ferry: the link "+currentConfiguration+" could not be set, so only "+currentRoot+" keeps the bundle: ") {
				t.Errorf("the log is %q", log)
			}
			if got, err := os.Readlink(m.Path(currentRoot)); err != nil || got != string(newBundle) {
				t.Errorf("the root is %q, %v", got, err)
			}
			facts := m.connect(locked("s2")).hello.Facts
			if facts.Bundle != string(newBundle) || facts.Committed != string(newSystem) {
				t.Errorf("the bundle is %q, of %q", facts.Bundle, facts.Committed)
			}
		})
	}
}

// TestTheCurrentBundleIsKnown goes through what the two links may be.
func TestTheCurrentBundleIsKnown(t *testing.T) {
	old, young := time.Unix(1_700_000_000, 0), time.Unix(1_700_000_100, 0)
	none := nix.StorePath("")
	for name, c := range map[string]struct {
		kept, linked nix.StorePath
		keptLast     bool // the root is the younger one
		boots        nix.StorePath
		want         nix.StorePath
	}{
		"neither":                               {none, none, false, oldSystem, none},
		"no root, as an older ferry's script":   {none, oldBundle, false, oldSystem, oldBundle},
		"no link, as in an /etc that is lost":   {oldBundle, none, false, oldSystem, oldBundle},
		"both":                                  {newBundle, newBundle, false, newSystem, newBundle},
		"a script of before moved the link":     {oldBundle, newBundle, false, newSystem, newBundle},
		"and the clock was set since":           {oldBundle, newBundle, true, newSystem, newBundle},
		"the link could not be moved":           {newBundle, oldBundle, true, newSystem, newBundle},
		"and the clock was set":                 {newBundle, oldBundle, false, newSystem, newBundle},
		"neither boots, and the link is young":  {oldBundle, newBundle, false, "/nix/store/44444444444444444444444444444444-third", newBundle},
		"neither boots, and the root is young":  {oldBundle, newBundle, true, "/nix/store/44444444444444444444444444444444-third", oldBundle},
		"both boot the same, the link is young": {oldBundle, "/nix/store/55555555555555555555555555555555-ferry-pi", false, oldSystem, "/nix/store/55555555555555555555555555555555-ferry-pi"},
		"both boot the same, the root is young": {oldBundle, "/nix/store/55555555555555555555555555555555-ferry-pi", true, oldSystem, oldBundle},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			_ = os.Remove(m.Path(currentConfiguration))
			m.Link(string(oldSystem), "/nix/store/55555555555555555555555555555555-ferry-pi/profile")
			m.again(string(c.boots), systemProfile+"-1-link")
			if c.boots == "/nix/store/44444444444444444444444444444444-third" {
				m.Write(string(c.boots)+"/init", "")
			}
			for link, bundle := range map[string]nix.StorePath{currentRoot: c.kept, currentConfiguration: c.linked} {
				if bundle == "" {
					continue
				}
				m.Link(string(bundle), link)
				when := old
				if (link == currentRoot) == c.keptLast {
					when = young
				}
				at := unix.NsecToTimeval(when.UnixNano())
				if err := unix.Lutimes(m.Path(link), []unix.Timeval{at, at}); err != nil {
					t.Fatal(err)
				}
			}
			if got := currentBundle(m.Root); got != string(c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestARootOfAnOlderFerryIsTakenOver locks the way from the root that was a link to the link in /etc/nixos.
func TestARootOfAnOlderFerryIsTakenOver(t *testing.T) {
	m := newMachine(t)
	m.Link(currentConfiguration, currentRoot)
	if got := currentBundle(m.Root); got != string(oldBundle) {
		t.Errorf("before: %q", got)
	}
	if status, log := m.work(commitJob); status.Status != 0 || status.Error != "" {
		t.Fatalf("%+v\n%s", status, log)
	}
	for _, link := range []string{currentRoot, currentConfiguration} {
		if got, err := os.Readlink(m.Path(link)); err != nil || got != string(newBundle) {
			t.Errorf("%s: %q, %v", link, got, err)
		}
	}
}

// TestWithoutABundleThereIsNoLink locks that neither link says what is not so any more.
func TestWithoutABundleThereIsNoLink(t *testing.T) {
	m := newMachine(t)
	m.Link(string(oldBundle), currentRoot)
	if err := keepCurrent(m.Root, "", os.Stderr); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{currentRoot, currentConfiguration} {
		if m.Exists(link) {
			t.Errorf("%s is left", link)
		}
	}
}

// TestAnEmptiedJournalIsMadeUpFor locks that what a reboot of an impermanent machine leaves, which is /nix, is enough to return
// to what ran before, and that a rollback does not change what that is.
func TestAnEmptiedJournalIsMadeUpFor(t *testing.T) {
	m := newMachine(t)
	forget := func() agent.Facts {
		t.Helper()
		for _, folder := range []string{"/var/log", "/var/lib", "/etc/nixos"} {
			if err := os.RemoveAll(m.Path(folder)); err != nil {
				t.Fatal(err)
			}
		}
		return m.connect(locked("s" + time.Now().Format("150405.000000000"))).hello.Facts
	}
	if facts := forget(); facts.Previous != nil || facts.Bundle != "" {
		t.Errorf("before the first deployment: %+v, %q", facts.Previous, facts.Bundle)
	}
	m.Link(string(oldBundle), currentConfiguration)
	if status, log := m.work(commitJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	want := agent.JournalState{Current: string(oldSystem), Bundle: string(oldBundle)}
	if facts := forget(); facts.Previous == nil || *facts.Previous != want || facts.Bundle != string(newBundle) {
		t.Errorf("after it: %+v, %q", facts.Previous, facts.Bundle)
	}
	m.again(string(newSystem), "/run/current-system")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	back := Job{Toplevel: oldSystem, Bundle: oldBundle, Action: "boot", Record: agent.Record{Action: agent.ActionRollback}}
	if status := commitJob(t.Context(), m.Root, back, log); status.Status != 0 {
		t.Fatalf("%+v", status)
	}
	if facts := forget(); facts.Previous == nil || facts.Previous.Current != string(oldSystem) || facts.Bundle != string(oldBundle) {
		t.Errorf("after the rollback: %+v, %q", facts.Previous, facts.Bundle)
	}
}
