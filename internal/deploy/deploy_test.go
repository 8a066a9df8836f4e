package deploy

import (
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/inventory"
)

func TestIsDoneOnlyWhenEverythingIsAsAsked(t *testing.T) {
	ready := built{bundle: newBundle, toplevel: newSystem}
	all := agent.Facts{Current: newSystem, Profile: newSystem, Bundle: newBundle, Committed: newSystem}
	for name, c := range map[string]struct {
		change func(*agent.Facts)
		same   []Action // the system needs nothing
		done   []Action // nor does the bundle
	}{
		"as asked":               {func(*agent.Facts) {}, []Action{Switch, Boot, Test}, []Action{Switch, Boot, Test}},
		"another bundle":         {func(f *agent.Facts) { f.Bundle = oldBundle }, []Action{Switch, Boot, Test}, []Action{Test}},
		"runs another":           {func(f *agent.Facts) { f.Current = oldSystem }, []Action{Boot}, []Action{Boot}},
		"boots another":          {func(f *agent.Facts) { f.Profile = oldSystem }, []Action{Test}, []Action{Test}},
		"never committed":        {func(f *agent.Facts) { f.Committed, f.Bundle = "", "" }, nil, nil},
		"committed another":      {func(f *agent.Facts) { f.Committed, f.Bundle = oldSystem, oldBundle }, nil, nil},
		"nothing is known of it": {func(f *agent.Facts) { *f = agent.Facts{} }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			facts := all
			c.change(&facts)
			for _, action := range []Action{Switch, Boot, Test, DryActivate} {
				d := &deployment{opts: Options{Action: action}}
				if got := d.sameSystem(ready, facts); got != slices.Contains(c.same, action) {
					t.Errorf("%s: the same system: %v", action, got)
				}
				if got := d.isDone(ready, facts); got != slices.Contains(c.done, action) {
					t.Errorf("%s: done: %v", action, got)
				}
			}
		})
	}
}

func TestLineWriter(t *testing.T) {
	for name, c := range map[string]struct {
		said string
		want []string
	}{
		"lines":              {"one\ntwo\n", []string{"one", "two"}},
		"no end":             {"one\ntwo", []string{"one", "two"}},
		"empty":              {"", nil},
		"empty lines":        {"\n\n", []string{"", ""}},
		"redrawn":            {"10%\r20%\r100%\r\n", []string{"100%"}},
		"control characters": {"\x1b[31mred\x1b[0m\a\n", []string{"red?"}},
		"cut in a letter":    {"zoë\n", []string{"zoë"}},
	} {
		for size := 1; size <= len(c.said)+1; size++ {
			var got []string
			w := &lineWriter{emit: func(line string) { got = append(got, line) }}
			for part := range slices.Chunk([]byte(c.said), size) {
				if n, err := w.Write(part); n != len(part) || err != nil {
					t.Fatalf("%d, %v", n, err)
				}
			}
			w.flush()
			if !slices.Equal(got, c.want) || w.total != int64(len(c.said)) {
				t.Errorf("%s, in pieces of %d: %q after %d bytes", name, size, got, w.total)
			}
		}
	}
}

func TestLineWriterCutsAnEndlessLine(t *testing.T) {
	var lines, longest int
	w := &lineWriter{emit: func(line string) {
		lines++
		longest = max(longest, len(line))
	}}
	piece := []byte(strings.Repeat("x", 1000))
	for range 10_000 {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
		if len(w.held) > maxHeld {
			t.Fatalf("%d bytes are held", len(w.held))
		}
	}
	w.flush()
	if lines != 1 || longest > maxHeld || w.total != 10_000_000 {
		t.Errorf("%d lines of up to %d bytes out of %d", lines, longest, w.total)
	}
}

func TestElevation(t *testing.T) {
	if got := elevation(inventory.Node{}); !slices.Equal(got, []string{"sudo"}) {
		t.Errorf("%q", got)
	}
	node := inventory.Node{Elevate: []string{"doas", "-u", "root"}}
	if got := elevation(node); !slices.Equal(got, node.Elevate) {
		t.Errorf("%q", got)
	}
}
