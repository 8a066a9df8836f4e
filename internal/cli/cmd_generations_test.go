package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ferry/internal/agent"
)

const (
	oneSystem   = "/nix/store/00000000000000000000000000000000-nixos-system-web"
	otherSystem = "/nix/store/11111111111111111111111111111111-nixos-system-web"
)

func generationsOf(when time.Time) agent.GenerationsResult {
	return agent.GenerationsResult{
		Current: otherSystem, Booted: oneSystem,
		Generations: []agent.Generation{
			{Number: 8, Time: when.Unix(), Toplevel: oneSystem, Version: "24.05.20240531.63dacb4", Booted: true},
			{Number: 9},
			{Number: 10, Time: when.Unix(), Toplevel: otherSystem, Version: "24.11<pre>", Revision: strings.Repeat("a", 40), Dirty: true, Current: true, Default: true},
		},
	}
}

// TestGenerationsAreATable locks what people see.
func TestGenerationsAreATable(t *testing.T) {
	var out bytes.Buffer
	if err := writeGenerations(&out, generationsOf(time.Date(2026, 5, 4, 3, 2, 1, 0, time.Local))); err != nil {
		t.Fatal(err)
	}
	want := `NUMBER  DATE              VERSION            REVISION  TOPLEVEL
     8  2026-05-04 03:02  24.05.20240531.6…  -         00000000  booted
     9  -                 -                  -         -
    10  2026-05-04 03:02  24.11<pre>         aaaaaaa+  11111111  current default
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// TestTheTableOfGenerationsFitsEightyColumns has the widest that every column can be.
func TestTheTableOfGenerationsFitsEightyColumns(t *testing.T) {
	result := generationsOf(time.Now())
	g := result.Generations[2]
	g.Number, g.Version, g.Booted = 123456, strings.Repeat("ü", 200), true
	result.Generations = append(result.Generations, g)
	var out bytes.Buffer
	if err := writeGenerations(&out, result); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(out.String(), "üüü…  aaaaaaa+  11111111  current booted default\n") {
		t.Errorf("%s", out.String())
	}
}

// TestSystemsThatAreNoGenerationsAreNamed is about what a test leaves, and about a list that was cut.
func TestSystemsThatAreNoGenerationsAreNamed(t *testing.T) {
	const third = "/nix/store/22222222222222222222222222222222-third"
	for name, c := range map[string]struct {
		change func(*agent.GenerationsResult)
		want   []string
	}{
		"all are there":    {func(*agent.GenerationsResult) {}, nil},
		"a test":           {func(r *agent.GenerationsResult) { r.Current = third }, []string{"web: the running system is none of them: " + third}},
		"booted and gone":  {func(r *agent.GenerationsResult) { r.Booted = third }, []string{"web: the booted system is none of them: " + third}},
		"both":             {func(r *agent.GenerationsResult) { r.Current, r.Booted = third, third }, []string{"web: the running system is none of them: " + third}},
		"nothing is known": {func(r *agent.GenerationsResult) { r.Current, r.Booted = "", "" }, nil},
		"many":             {func(r *agent.GenerationsResult) { r.Older = 3 }, []string{"web: there are 3 older ones"}},
	} {
		t.Run(name, func(t *testing.T) {
			result := generationsOf(time.Now())
			c.change(&result)
			if got := generationNotes("web", result); !slices.Equal(got, c.want) {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestGenerationsAsJSON locks the schema that the help documents.
func TestGenerationsAsJSON(t *testing.T) {
	var out bytes.Buffer
	result := generationsOf(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC))
	result.Generations = result.Generations[1:]
	if err := writeGenerationsJSON(&out, "web", result); err != nil {
		t.Fatal(err)
	}
	want := `{
  "node": "web",
  "current": "` + otherSystem + `",
  "booted": "` + oneSystem + `",
  "older": 0,
  "generations": [
    {
      "number": 9,
      "time": "",
      "toplevel": "",
      "version": "",
      "bundle": "",
      "revision": "",
      "dirty": false,
      "current": false,
      "booted": false,
      "default": false
    },
    {
      "number": 10,
      "time": "2026-05-04T03:02:01Z",
      "toplevel": "` + otherSystem + `",
      "version": "24.11<pre>",
      "bundle": "",
      "revision": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "dirty": true,
      "current": true,
      "booted": false,
      "default": true
    }
  ]
}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	out.Reset()
	if err := writeGenerationsJSON(&out, "web", agent.GenerationsResult{}); err != nil || !strings.Contains(out.String(), `"generations": []`) {
		t.Errorf("%v: %s", err, out.String())
	}
}
