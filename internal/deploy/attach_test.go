package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/health"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// fakeSwitch is a target on which a switch is under way: the file switch says what it says of that first, the file ended what it says
// of its end.
func fakeSwitch(dir string, wire *agent.Wire) {
	for {
		r := agenttest.ReadRequest(wire)
		if r.Method == "" {
			return
		}
		name := "switch"
		if r.Method == agent.MethodFinish {
			agenttest.Record(dir, fmt.Sprintf("verdict %q", r.Verdict))
			name = "ended"
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return
		}
		_ = wire.WriteJSON(agent.FrameResponse, map[string]json.RawMessage{"id": fmt.Append(nil, r.ID), "switch": text})
	}
}

// says writes what the target says of its switch.
func (n *fakeNode) says(t *testing.T, name string, result map[string]any) {
	t.Helper()
	text, err := json.Marshal(result)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.Dir, name), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A target that names checks for the ferry that attaches has none of them made: only those of the inventory here are.
func TestAttachMakesNoChecksThatTheTargetNames(t *testing.T) {
	var theirs, mine atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { theirs.Add(1) }))
	t.Cleanup(target.Close)
	own := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { mine.Add(1) }))
	t.Cleanup(own.Close)
	hostile := requestFrom(health.Here, target.URL)
	hostile.HTTP = append(hostile.HTTP, requestFrom(health.Target, target.URL).HTTP...)
	checks := requestFrom(health.Here, own.URL)
	name, err := nameOf(checks)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		mine    health.Checks
		awaits  string
		made    int32
		verdict agent.Verdict
		says    string
	}{
		"the same as here":       {checks, name, 1, agent.VerdictKeep, ""},
		"others than here":       {checks, "a name of others", 1, agent.VerdictKeep, "note this deployment was begun with other checks than the inventory has for pi: those of the inventory are made"},
		"some, and none here":    {health.Default(), "a name", 0, "", "note this deployment waits for checks, and the inventory has none for pi: it is only watched, and rolls back unless the ferry that started it is still there"},
		"none, and some here":    {checks, "", 0, "", "note this deployment was begun without checks: those that the inventory has for pi are not made"},
		"none, here neither":     {health.Default(), "", 0, "", ""},
		"what is no name at all": {checks, "\x1b[31m", 1, agent.VerdictKeep, "note this deployment was begun with other checks than the inventory has for pi: those of the inventory are made"},
	} {
		t.Run(what, func(t *testing.T) {
			theirs.Store(0)
			mine.Store(0)
			n := newFakeNode(t, action.Switch, "switches", "fails")
			n.says(t, "switch", map[string]any{
				"job": "job12345", "phase": agent.Confirmed, "left": 5, "toplevel": agenttest.NewSystem, "bundle": agenttest.NewBundle, "awaits": c.awaits, "checks": hostile,
			})
			n.says(t, "ended", map[string]any{"phase": agent.Ended, "outcome": agent.SwitchCommitted, "generation": 7, "toplevel": agenttest.NewSystem, "checks": hostile})
			if _, err := n.attach(agenttest.Soon(t), c.mine); err != nil {
				t.Fatal(err)
			}
			if theirs.Load() != 0 || mine.Load() != c.made {
				t.Errorf("%d requests as the target says, %d as the inventory says", theirs.Load(), mine.Load())
			}
			if got := n.Record(t); !slices.Contains(got, fmt.Sprintf("verdict %q", c.verdict)) {
				t.Errorf("it was told %q, want the verdict %q", got, c.verdict)
			}
			notes := slices.DeleteFunc(slices.Clone(n.events), func(e string) bool { return !strings.HasPrefix(e, "note this deployment") })
			if strings.Join(notes, "\n") != c.says {
				t.Errorf("it says %q", notes)
			}
		})
	}
}

// inStore puts a folder with these files, or links, into the store.
func inStore(t *testing.T, name string, files, links map[string]string) nix.StorePath {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range links {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return added(t, dir)
}

func added(t *testing.T, file string) nix.StorePath { return printed(t, "nix-store", "--add", file) }

func instantiated(t *testing.T, expression string) nix.StorePath {
	return printed(t, "nix-instantiate", "--expr", expression)
}

// printed is the store path that a command of Nix prints.
func printed(t *testing.T, argv ...string) nix.StorePath {
	t.Helper()
	var said strings.Builder
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	p, err := nix.ParseStorePath(string(bytes.TrimSpace(out)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Whatever a target says that it has, only a bundle that ferry made here for this node is kept, and nothing is built.
func TestOnlyWhatFerryMadeIsKeptAsDeployed(t *testing.T) {
	system := inStore(t, "nixos-system-pi", map[string]string{"nixos-version": "24.05"}, nil)
	other := inStore(t, "nixos-system-other", map[string]string{"nixos-version": "24.11"}, nil)
	bundle := func(name, node string, profile nix.StorePath) nix.StorePath {
		return inStore(t, name, map[string]string{"ferry.json": fmt.Sprintf(`{"node": %q}`, node)}, map[string]string{"profile": string(profile)})
	}
	marker := filepath.Join(t.TempDir(), "built")
	derivation := instantiated(t, fmt.Sprintf(`derivation { name = "ferry-pi"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo >%s; echo >$out" ]; }`, marker))
	for name, c := range map[string]struct {
		bundle nix.StorePath
		kept   bool
	}{
		"a bundle of this node's":       {bundle("ferry-pi", "pi", system), true},
		"one of another node's":         {bundle("ferry-web", "web", system), false},
		"one of another system":         {bundle("ferry-pi-other", "pi", other), false},
		"a system":                      {system, false},
		"a derivation":                  {derivation, false},
		"what is not here":              {agenttest.NewBundle, false},
		"a file":                        {added(t, writtenFile(t, "file", "text")), false},
		"nothing":                       {"", false},
		"a bundle with a broken record": {inStore(t, "ferry-pi-broken", map[string]string{"ferry.json": "{"}, map[string]string{"profile": string(system)}), false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t, action.Switch, "fails")
			// The real Nix.
			t.Setenv("PATH", strings.SplitN(os.Getenv("PATH"), ":", 2)[1])
			n.Nix = &nix.Client{Runner: new(run.Runner)}
			n.keepIfOurs(agenttest.Soon(t), Result{Outcome: Committed, Bundle: c.bundle, Toplevel: system})
			kept, err := os.Readlink(n.Roots.Deployed(n.Inventory.File, n.Node.Name))
			if (err == nil) != c.kept || c.kept && kept != string(c.bundle) {
				t.Errorf("%q is kept, %v; events %q", kept, err, n.events)
			}
			if c.bundle.IsDerivation() {
				if err := n.Nix.Root(agenttest.Soon(t), filepath.Join(t.TempDir(), "root"), c.bundle); err == nil {
					t.Error("a derivation is made a root")
				}
			}
		})
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a derivation was built")
	}
}

func writtenFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// What a deployment keeps is what it has shipped, whatever the target says that it has at the end.
func TestWhatWasShippedIsKeptWhateverTheTargetSays(t *testing.T) {
	for act, want := range map[string]nix.StorePath{"": agenttest.NewBundle, agent.ActionRollback: agenttest.NewBundle} {
		n := newFakeNode(t, action.Switch, "fails")
		n.what = act
		s := n.newSwitching("job12345", agenttest.NewSystem, agent.Facts{})
		result := Result{Bundle: agenttest.NewBundle, Toplevel: agenttest.NewSystem}
		got := agent.SwitchResult{Outcome: agent.SwitchCommitted, Bundle: agenttest.OldBundle, Toplevel: agenttest.OldSystem}
		if err := s.conclude(got, &result); err != nil || result.Bundle != want || result.Toplevel != agenttest.NewSystem {
			t.Errorf("%q: %+v, %v", act, result, err)
		}
	}
}
