package nix

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// evaluated is what became of the parts of a process.
type evaluated struct {
	begun, values, faults []string
	logs                  []bytes.Buffer
}

// evalEach evaluates texts purely in one process of real Nix.
func evalEach(t *testing.T, texts ...string) (*evaluated, error) {
	t.Helper()
	useRealNix(t)
	got := &evaluated{logs: make([]bytes.Buffer, len(texts))}
	parts := make([]Part, len(texts))
	for i, text := range texts {
		parts[i] = Part{
			Text: text, Log: &got.logs[i],
			Begun: func() { got.begun = append(got.begun, fmt.Sprint(i)) },
			Done: func(value []byte, err error) {
				if err == nil {
					got.values = append(got.values, fmt.Sprintf("%d: %s", i, value))
					return
				}
				var eval *EvalError
				if !errors.As(err, &eval) {
					t.Fatalf("part %d: %v is no EvalError", i, err)
				}
				got.faults = append(got.faults, fmt.Sprintf("%d: %s", i, eval.Summary()))
			},
		}
	}
	return got, (&Client{}).EvalEach(t.Context(), Expression{Pure: true, Instantiate: true}, parts)
}

// TestOneProcessEvaluatesSeveral locks that every value comes back as it is, whatever is in it, and every message where it belongs.
func TestOneProcessEvaluatesSeveral(t *testing.T) {
	texts := []string{
		`builtins.trace "first" { a = 1; b = [ true null ]; }`,
		`"quote \" backslash \\ newline \n return \r tab \t dollar $ \${a} é"`,
		`builtins.trace "error: none" (builtins.trace "third" 3)`,
		// Longer than a pipe holds.
		`builtins.foldl' (a: _: a + a) "0123456789" (builtins.genList (x: x) 14)`,
	}
	got, err := evalEach(t, texts...)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`0: {"a":1,"b":[true,null]}`, `1: "quote \" backslash \\ newline \n return \r tab \t dollar $ ${a} é"`, "2: 3",
		`3: "` + strings.Repeat("0123456789", 1<<14) + `"`}
	if !slices.Equal(got.values, want) {
		t.Errorf("got %.300q, want %.300q", got.values, want)
	}
	if want := []string{"0", "1", "2", "3"}; !slices.Equal(got.begun, want) {
		t.Errorf("begun: %q, want %q", got.begun, want)
	}
	for i, want := range []string{"trace: first\n", "", "trace: error: none\ntrace: third\n", ""} {
		if log := got.logs[i].String(); log != want {
			t.Errorf("part %d said %q, want %q", i, log, want)
		}
	}
	// The same as Eval, which has Nix write JSON itself.
	for i, text := range texts {
		value, err := (&Client{}).Eval(t.Context(), Expression{Text: text, Pure: true})
		if err != nil || fmt.Sprintf("%d: %s", i, value) != want[i] {
			t.Errorf("Eval gives %.300q (%v), want %.300q", value, err, want[i])
		}
	}
}

// TestAPartAtFaultEndsTheProcess locks whose error it is, and that those before it have their values and those after it nothing.
func TestAPartAtFaultEndsTheProcess(t *testing.T) {
	got, err := evalEach(t, `1`, `builtins.trace "beware" (throw "no such thing")`, `3`)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.values, []string{"0: 1"}) || len(got.faults) != 1 || !strings.Contains(got.faults[0], "no such thing") || got.faults[0][0] != '1' {
		t.Errorf("values %q, faults %q", got.values, got.faults)
	}
	if log := got.logs[1].String(); log != "trace: beware\n" {
		t.Errorf("the part at fault said %q", log)
	}
	// What is impure is known by its error.
	got, err = evalEach(t, `builtins.currentTime`, `2`)
	if err != nil || len(got.faults) != 1 || len(got.values) != 0 {
		t.Errorf("%v: values %q, faults %q", err, got.values, got.faults)
	}
}

// TestAProcessThatFailsAsAWholeIsNoPartsFault locks that what is no part's fault is not told any of them.
func TestAProcessThatFailsAsAWholeIsNoPartsFault(t *testing.T) {
	got, err := evalEach(t, `1`, `in`, `3`)
	if err == nil || len(got.values) != 0 || len(got.faults) != 0 {
		t.Errorf("%v: values %q, faults %q", err, got.values, got.faults)
	}
}

// TestAProcessThatIsKilledInAValueHasNotToldIt locks that half a value is none, nor one that was too long to be kept.
func TestAProcessThatIsKilledInAValueHasNotToldIt(t *testing.T) {
	for title, c := range map[string]struct {
		out  string
		want []string
	}{
		"whole":        {"\"1\"\n\"2\"\n", []string{"1", "2"}},
		"half":         {"\"1\"\n\"2", []string{"1"}},
		"at its end":   {"\"1\"\n\"2\"", []string{"1"}},
		"in an escape": {"\"1\"\n\"2\\\"", []string{"1"}},
		"too long":     {"\"" + strings.Repeat("1", maxLogLine) + "\"\n\"2\"\n", nil},
	} {
		var told []string
		p := eachPart{current: -1, mark: "mark "}
		for range 2 {
			p.parts = append(p.parts, Part{Done: func(value []byte, _ error) { told = append(told, string(value)) }})
		}
		p.line("trace: mark 0")
		p.line("trace: mark 1")
		if _, err := (&lineWriter{each: p.value}).Write([]byte(c.out)); err != nil {
			t.Fatal(err)
		}
		if err := p.end(t.Context(), errors.New("killed")); err == nil {
			t.Errorf("%s: that it was killed is no error", title)
		}
		if !slices.Equal(told, c.want) {
			t.Errorf("%s: told %.40q, want %q", title, told, c.want)
		}
	}
}
