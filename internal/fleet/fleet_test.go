package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/deploy"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/preview"
	"ferry/internal/session"
	"ferry/internal/target"
)

// fakes are nodes whose deployments only take their turns. What is said of a node decides how far it comes.
type fakes struct {
	t     *testing.T
	fails map[string]func(turn func(session.Step) error) error

	mu      sync.Mutex
	log     []string // "NAME changed", in their order, and what else happens
	now     int      // how many are being changed
	most    int
	asks    int
	askMax  int
	ships   int
	shipMax int
}

func named(names ...string) []inventory.Node {
	var nodes []inventory.Node
	for _, n := range names {
		nodes = append(nodes, inventory.Node{Name: n})
	}
	return nodes
}

func (f *fakes) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, text)
}

// fleet makes a fleet of fakes.
func (f *fakes) fleet(opts Options, names ...string) *fleet {
	if opts.Parallel == 0 {
		opts.Parallel = 10
	}
	opts.Batch = func(number, of, nodes int) { f.note(fmt.Sprintf("batch %d/%d of %d", number, of, nodes)) }
	fl := newFleet(session.Session{}, &inventory.Inventory{}, named(names...), opts)
	fl.deploy = f.deploy
	fl.rollBack = func(_ context.Context, _ session.Session, node inventory.Node, _ deploy.RollbackOptions) (deploy.Result, error) {
		f.note(node.Name + " taken back")
		return deploy.Result{}, nil
	}
	return fl
}

func (f *fakes) deploy(ctx context.Context, s session.Session, node inventory.Node, o deploy.Options) (deploy.Result, error) {
	var overs []func()
	defer func() {
		for _, over := range overs {
			over()
		}
	}()
	turn := func(step session.Step) error {
		over, err := s.Turn(ctx, node.Name, step)
		if err != nil {
			return &session.Error{Node: node.Name, Step: step, State: session.Unchanged, Err: err}
		}
		if step == session.Ship {
			f.mu.Lock()
			f.ships++
			f.shipMax = max(f.shipMax, f.ships)
			f.mu.Unlock()
			// For longer than it takes until all have been asked about.
			time.Sleep(10 * time.Second)
			f.mu.Lock()
			f.ships--
			f.mu.Unlock()
		}
		if step != session.Ship && step != session.Activate {
			if step == session.Build {
				f.mu.Lock()
				f.asks++
				f.askMax = max(f.askMax, f.asks)
				f.mu.Unlock()
				time.Sleep(time.Second)
				f.mu.Lock()
				f.asks--
				f.mu.Unlock()
			}
			over()
			return nil
		}
		overs = append(overs, over)
		return nil
	}
	if fail := f.fails[node.Name]; fail != nil {
		if err := fail(turn); err != nil {
			return deploy.Result{}, err
		}
	}
	for _, step := range []session.Step{session.Connect, session.Build, session.Compare, session.Ship, session.Activate} {
		if step == session.Ship && o.Agree != nil {
			if _, err := o.Agree(ctx, &preview.Planned{Comparison: preview.Comparison{Node: node.Name}}); err != nil {
				return deploy.Result{}, &session.Error{Node: node.Name, Step: session.Connect, State: session.Unchanged, Err: err}
			}
		}
		if err := turn(step); err != nil {
			return deploy.Result{}, err
		}
	}
	f.mu.Lock()
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	time.Sleep(time.Second)
	f.note(node.Name + " changed")
	f.mu.Lock()
	f.now--
	f.mu.Unlock()
	return deploy.Result{Outcome: deploy.Committed}, nil
}

// failing is a deployment that fails in a step, and leaves its node in a state.
func failing(step session.Step, state session.State, err error) func(func(session.Step) error) error {
	return func(turn func(session.Step) error) error {
		for _, s := range []session.Step{session.Connect, session.Build, session.Ship, session.Activate} {
			if err := turn(s); err != nil {
				return err
			}
			if s == step || step == session.Check && s == session.Activate {
				break
			}
		}
		if step == session.Check {
			time.Sleep(2 * time.Second)
		}
		return &session.Error{Node: "x", Step: step, State: state, Err: err}
	}
}

// once does something when the first node has ended, before that counts.
func (f *fakes) once(do func()) func(Outcome) {
	var first sync.Once
	return func(Outcome) { first.Do(do) }
}

func statusesOf(outcomes []Outcome) string {
	var words []string
	for _, o := range outcomes {
		words = append(words, o.Node.Name+": "+string(o.Status))
	}
	return strings.Join(words, ", ")
}

// TestOneFailureDoesNotStopTheOthers locks what becomes of nodes without batches, and how many are at work at once.
func TestOneFailureDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{t: t, fails: map[string]func(func(session.Step) error) error{
			"b": failing(session.Build, session.Unchanged, errors.New("no")),
			"c": failing(session.Check, session.RolledBack, errors.New("no")),
			"d": failing(session.Connect, session.Unchanged, &target.Error{Kind: target.Refused}),
			"e": failing(session.Check, session.Unknown, errors.New("no")),
		}}
		outcomes := f.fleet(Options{MaxFailures: -1, Parallel: 2}, "a", "b", "c", "d", "e", "f", "g", "h").run(t.Context())
		want := "a: done, b: failed, c: rolled back, d: unreachable, e: unknown, f: done, g: done, h: done"
		if got := statusesOf(outcomes); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if f.most > 2 || f.askMax != 2 {
			t.Errorf("%d nodes were changed at once, %d found out whether they can be built; want 2 and 2", f.most, f.askMax)
		}
	})
}

// TestShippingAndActivatingAreLimitedApart locks that each has its number, and that a node which waits for its activation is left
// as it is when others have failed.
func TestShippingAndActivatingAreLimitedApart(t *testing.T) {
	for title, c := range map[string]struct {
		parallel, activate int
		ships, changes     int
	}{
		"fewer are activated": {4, 2, 4, 2},
		"fewer are shipped":   {2, 6, 2, 6},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakes{t: t}
			outcomes := f.fleet(Options{MaxFailures: -1, Parallel: c.parallel, ParallelActivate: c.activate}, "a", "b", "c", "d", "e", "f", "g", "h").run(t.Context())
			if got := statusesOf(outcomes); strings.Count(got, "done") != 8 || f.shipMax != c.ships || f.most > c.changes || f.most < 2 {
				t.Errorf("%s: %s; shipped to %d at once and changed %d", title, got, f.shipMax, f.most)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		no := failing(session.Check, session.RolledBack, errors.New("no"))
		f := &fakes{t: t, fails: map[string]func(func(session.Step) error) error{"a": no, "b": no, "c": no, "d": no}}
		outcomes := f.fleet(Options{ParallelActivate: 1, Ended: f.once(synctest.Wait)}, "a", "b", "c", "d").run(t.Context())
		if got := statusesOf(outcomes); strings.Count(got, "rolled back") != 1 || strings.Count(got, "not begun") != 3 {
			t.Errorf("after the first failure: %s", got)
		}
	})
}

// TestNoNodeTakesThePlaceOfTheLastFailure locks that a failure counts before another node may begin where it was.
func TestNoNodeTakesThePlaceOfTheLastFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		no := failing(session.Check, session.RolledBack, errors.New("no"))
		f := &fakes{t: t, fails: map[string]func(func(session.Step) error) error{"a": no, "b": no, "c": no}}
		outcomes := f.fleet(Options{Parallel: 1, Ended: f.once(synctest.Wait)}, "a", "b", "c").run(t.Context())
		if got := statusesOf(outcomes); strings.Count(got, "rolled back") != 1 || strings.Count(got, "not begun") != 2 {
			t.Errorf("one at a time, after the first failure: %s", got)
		}
	})
}

// TestBatchesComeOneAfterAnother locks their order, and the pause between them.
func TestBatchesComeOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{t: t}
		sizes, err := ParseBatches("1,2,rest")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		outcomes := f.fleet(Options{Batches: sizes, Pause: time.Hour}, "a", "b", "c", "d", "e").run(t.Context())
		if got := statusesOf(outcomes); strings.Count(got, "done") != 5 {
			t.Errorf("got %s", got)
		}
		for _, part := range [][]string{f.log[2:5], f.log[5:]} {
			slices.Sort(part)
		}
		want := "batch 1/3 of 1; a changed; b changed; batch 2/3 of 2; c changed; batch 3/3 of 2; d changed; e changed"
		if got := strings.Join(f.log, "; "); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if took := time.Since(begin); took < 2*time.Hour || took > 3*time.Hour {
			t.Errorf("it took %v with two pauses of an hour", took)
		}
	})
}

// TestNoNodeIsChangedBeforeAllAreBuilt locks that a failure found early in a later batch leaves every node untouched.
func TestNoNodeIsChangedBeforeAllAreBuilt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{t: t, fails: map[string]func(func(session.Step) error) error{"d": failing(session.Build, session.Unchanged, errors.New("no"))}}
		outcomes := f.fleet(Options{Batches: Batches{{count: 2}}}, "a", "b", "c", "d").run(t.Context())
		if got := statusesOf(outcomes); got != "a: not begun, b: not begun, c: not begun, d: failed" {
			t.Errorf("got %s", got)
		}
		if len(f.log) != 0 {
			t.Errorf("something was done: %s", f.log)
		}
	})
}

// TestAFailedBatchStopsTheRest locks which nodes stay untouched, and that the batch is taken back if that is wanted.
func TestAFailedBatchStopsTheRest(t *testing.T) {
	for title, c := range map[string]struct {
		opts Options
		want string
		log  string
	}{
		"stops":      {Options{}, "a: done, b: done, c: rolled back, d: not begun", "a changed; b changed; batch 1/3 of 1; batch 2/3 of 2"},
		"one may":    {Options{MaxFailures: 1}, "a: done, b: done, c: rolled back, d: done", "a changed; b changed; batch 1/3 of 1; batch 2/3 of 2; batch 3/3 of 1; d changed"},
		"taken back": {Options{RollBackBatch: true}, "a: done, b: rolled back, c: rolled back, d: not begun", "a changed; b changed; b taken back; batch 1/3 of 1; batch 2/3 of 2"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakes{t: t, fails: map[string]func(func(session.Step) error) error{"c": failing(session.Check, session.RolledBack, errors.New("no"))}}
			c.opts.Batches = Batches{{count: 1}, {count: 2}, {rest: true}}
			outcomes := f.fleet(c.opts, "a", "b", "c", "d").run(t.Context())
			if got := statusesOf(outcomes); got != c.want {
				t.Errorf("%s: got %s\nwant %s", title, got, c.want)
			}
			slices.Sort(f.log)
			if got := strings.Join(f.log, "; "); got != c.log {
				t.Errorf("%s: got %s\nwant %s", title, got, c.log)
			}
		})
	}
}

// TestAnUnreachableNodeMayBeSkipped locks that it then does not stop the others.
func TestAnUnreachableNodeMayBeSkipped(t *testing.T) {
	for skip, want := range map[bool]string{
		true:  "a: unreachable, b: done",
		false: "a: unreachable, b: not begun",
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakes{t: t, fails: map[string]func(func(session.Step) error) error{
				"a": failing(session.Connect, session.Unchanged, &target.Error{Kind: target.TimedOut}),
			}}
			outcomes := f.fleet(Options{SkipUnreachable: skip, Batches: Batches{{count: 1}}}, "a", "b").run(t.Context())
			if got := statusesOf(outcomes); got != want {
				t.Errorf("skip %v: got %s, want %s", skip, got, want)
			}
		})
	}
}

// TestAnInterruptionLeavesTheRest locks that the end of the context ends nodes that wait for their batch, and the pause.
func TestAnInterruptionLeavesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := &fakes{t: t}
		time.AfterFunc(time.Minute, cancel)
		outcomes := f.fleet(Options{Batches: Batches{{count: 1}}, Pause: time.Hour}, "a", "b", "c").run(ctx)
		if got := statusesOf(outcomes); got != "a: done, b: not begun, c: not begun" {
			t.Errorf("got %s", got)
		}
	})
}

// TestBatchSizes locks how sizes are read and shared out.
func TestBatchSizes(t *testing.T) {
	for text, c := range map[string]struct {
		total int
		want  string
	}{
		"1,10%,rest":  {25, "[1 3 21]"},
		"10%":         {20, "[2 2 2 2 2 2 2 2 2 2]"},
		"1,4":         {10, "[1 4 4 1]"},
		"rest":        {3, "[3]"},
		"5,rest":      {3, "[3]"},
		"100%":        {3, "[3]"},
		"0":           {3, `batches "0": "0" is not a batch size`},
		"101%":        {3, `batches "101%": "101%" is not a batch size`},
		"rest,1":      {3, `batches "rest,1": nothing comes after rest`},
		"":            {3, `batches "": "" is not a batch size`},
		"1,,2":        {3, `batches "1,,2": "" is not a batch size`},
		"one":         {3, `batches "one": "one" is not a batch size`},
		"rest%":       {3, `batches "rest%": "rest%" is not a batch size`},
		"99999999999": {3, "[3]"},
	} {
		sizes, err := ParseBatches(text)
		got := fmt.Sprint(sizes.split(c.total))
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != c.want || err != nil && !strings.HasPrefix(got, c.want) {
			t.Errorf("%q of %d: got %s, want %s", text, c.total, got, c.want)
		}
	}
}

// TestAFleetsEvaluationsShareTheMemory locks that a fleet tells the inventory how many of its nodes evaluate at once: with more than
// any machine has memory for, Nix is given no heap.
func TestAFleetsEvaluationsShareTheMemory(t *testing.T) {
	const heap = "GC_INITIAL_HEAP_SIZE"
	t.Setenv(heap, "")
	_ = os.Unsetenv(heap)
	pin, err := filepath.Abs("../inventory/testdata/nixpkgs")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"ferry.nix": `{ nixpkgs = ` + pin + `; nodes.a = { configuration = ./c.nix; impure = true; }; }`,
		"c.nix":     `{ text = builtins.trace "heap <${builtins.getEnv "` + heap + `"}>" "hello"; }`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := inventory.Open(t.Context(), &nix.Client{}, inventory.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	node, err := inv.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		nodes, cores int
		given        bool
	}{{1, 1 << 30, true}, {1 << 12, 1, true}, {1 << 12, 1 << 30, false}} {
		newFleet(session.Session{}, inv, make([]inventory.Node, c.nodes), Options{Cores: c.cores})
		var log bytes.Buffer
		if _, err := inv.Evaluate(t.Context(), node, &log, nil); err != nil {
			t.Fatal(err)
		}
		room := inventory.FreeMemory() > 4<<30
		if got := !strings.Contains(log.String(), "heap <>"); got != (c.given && room) {
			t.Errorf("%d nodes on %d cores: a heap is given: %t (%s)", c.nodes, c.cores, got, log.String())
		}
	}
}
