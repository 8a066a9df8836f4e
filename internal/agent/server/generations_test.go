package server

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine/machinetest"
	"ferry/internal/nix"
)

// TestGenerationsAreListedAsTheyAre asks an agent without the lock about three, of which two are the same system.
func TestGenerationsAreListedAsTheyAre(t *testing.T) {
	m := newMachine(t)
	m.Write(string(oldSystem)+"/nixos-version", "23.11")
	m.Write(string(newSystem)+"/nixos-version", "24.05")
	m.Link(string(newSystem), systemProfile+"-2-link")
	m.Link(string(oldSystem), systemProfile+"-10-link")
	m.Link(string(oldSystem)+"-gone", systemProfile+"-11-link")
	m.Link(string(oldSystem), systemProfile+"-x-link")
	m.Link(string(oldSystem), systemProfile+"-1-link.tmp")
	m.again("system-2-link", systemProfile)
	mustAppend(t, m.Root, entryOf("two"))
	f := m.connect(Options{})
	response, _ := f.ask(agent.Request{Method: agent.MethodGenerations})
	if response.Error != nil || response.Generations == nil {
		t.Fatalf("%+v", response)
	}
	got := *response.Generations
	for i := range got.Generations {
		if age := time.Now().Unix() - got.Generations[i].Time; age < 0 || age > 600 {
			t.Errorf("generation %d was made %d seconds ago", got.Generations[i].Number, age)
		}
		got.Generations[i].Time = 0
	}
	revision := entryOf("two").Revision
	want := []agent.Generation{
		{Number: 1, Toplevel: string(oldSystem), Version: "23.11", Bundle: string(oldBundle)},
		{Number: 2, Toplevel: string(newSystem), Version: "24.05", Bundle: string(newBundle), Revision: revision, Default: true},
		{Number: 10, Toplevel: string(oldSystem), Version: "23.11", Bundle: string(oldBundle), Current: true, Booted: true},
		{Number: 11},
	}
	if text, wanted := asJSON(t, got.Generations), asJSON(t, want); text != wanted {
		t.Errorf("got\n%s\nwant\n%s", text, wanted)
	}
	if got.Current != string(oldSystem) || got.Booted != string(oldSystem) || got.Older != 0 {
		t.Errorf("%+v", got)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestAGenerationHasTheRevisionThatItWasDeployedFrom has the same system deployed from several.
func TestAGenerationHasTheRevisionThatItWasDeployedFrom(t *testing.T) {
	m := newMachine(t)
	m.Link(string(newSystem), systemProfile+"-2-link")
	m.Link(string(newSystem), systemProfile+"-3-link")
	m.Link(string(newSystem), systemProfile+"-4-link")
	for i, revision := range []string{"aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"} {
		e := entryOf(revision)
		e.Revision, e.After.Generation = revision, i+2
		if i == 2 {
			// The same generation again: another bundle of the same system.
			e.After.Generation = 3
		}
		mustAppend(t, m.Root, e)
	}
	failed := entryOf("failed")
	failed.Revision, failed.Outcome, failed.After = "dddddddddd", agent.JournalRolledBack, failed.Before
	mustAppend(t, m.Root, failed)
	result, err := listGenerations(m.Root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range result.Generations {
		got = append(got, g.Revision)
	}
	// Of the fourth, only the system is known.
	if s := strings.Join(got, " "); s != " aaaaaaaaaa cccccccccc cccccccccc" {
		t.Errorf("%q", s)
	}
}

// TestTooManyGenerationsAreCutAtTheOldEnd has more than fit into an answer, by number and by size.
func TestTooManyGenerationsAreCutAtTheOldEnd(t *testing.T) {
	for name, c := range map[string]struct {
		all               int
		version, revision string
	}{
		"by number": {agent.MaxGenerations + 10, "24.05", ""}, "by size": {1000, strings.Repeat("<", 200), strings.Repeat("a", 64)},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Write(string(newSystem)+"/nixos-version", c.version)
			bundle := nix.StorePath("/nix/store/33333333333333333333333333333333-" + strings.Repeat("b", 200))
			m.Link(string(newSystem), string(bundle)+"/profile")
			m.Write(string(bundle)+"/ferry.json", fmt.Sprintf(`{"revision": %q}`, c.revision))
			m.again(string(bundle), currentConfiguration)
			for n := 2; n <= c.all; n++ {
				if err := os.Symlink(string(newSystem), m.Path(generationPath(n))); err != nil {
					t.Fatal(err)
				}
			}
			m.again(fmt.Sprintf("system-%d-link", c.all), systemProfile)
			f := m.connect(Options{})
			response, _ := f.ask(agent.Request{Method: agent.MethodGenerations})
			if response.Generations == nil {
				t.Fatalf("%+v", response.Error)
			}
			got := response.Generations.Generations
			if len(got)+response.Generations.Older != c.all || len(got) > agent.MaxGenerations || len(got) < 500 {
				t.Errorf("%d generations and %d older ones", len(got), response.Generations.Older)
			}
			if last := got[len(got)-1]; last.Number != c.all || !last.Default || got[0].Number != c.all-len(got)+1 {
				t.Errorf("from %d to %+v", got[0].Number, last)
			}
			if byNumber := name == "by number"; byNumber != (len(got) == agent.MaxGenerations) {
				t.Errorf("%d generations", len(got))
			}
		})
	}
}

// TestGenerationsOfAMachineWithoutProfilesAreAnError asks where there is no Nix.
func TestGenerationsOfAMachineWithoutProfilesAreAnError(t *testing.T) {
	m := &fakeMachine{machinetest.New(t)}
	f := m.connect(Options{})
	response, _ := f.ask(agent.Request{Method: agent.MethodGenerations})
	if response.Error == nil || !strings.Contains(response.Error.Text, "no such file or directory") {
		t.Errorf("%+v", response)
	}
}
