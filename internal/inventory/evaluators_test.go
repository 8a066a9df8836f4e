package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/nix"
	"ferry/internal/run"
)

const gb = 1 << 30

// fakeNix stands in for Nix: an expression "5" takes five seconds, and its value is its text. One with "bad" in it is at fault, and
// one with "kill" in it ends its process.
type fakeNix struct {
	mu        sync.Mutex
	processes []string // the texts of each, in the order in which they began
	now, most int
	peak      func(n int) int64
}

func (f *fakeNix) evaluators(sideBySide int, free int64) *evaluators {
	ev := &evaluators{free: func() int64 { return free }, heap: func() int64 { return 0 }, system: func(value []byte) bool { return !strings.Contains(string(value), "small") }}
	ev.most.Store(int64(sideBySide))
	ev.eval = func(ctx context.Context, e nix.Expression) (value []byte, err error) {
		e.Begun()
		failed := f.process(ctx, e, []nix.Part{{Text: e.Text, Log: e.Log, Done: func(v []byte, e error) { value, err = v, e }}})
		return value, errors.Join(err, failed)
	}
	ev.each = func(ctx context.Context, e nix.Expression, parts []nix.Part) error { return f.process(ctx, e, parts) }
	return ev
}

func (f *fakeNix) process(ctx context.Context, e nix.Expression, parts []nix.Part) error {
	var texts []string
	for _, p := range parts {
		texts = append(texts, p.Text)
	}
	f.mu.Lock()
	f.processes = append(f.processes, strings.Join(texts, " "))
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.now--
	}()
	if f.peak != nil {
		defer e.Peak(f.peak(len(parts)))
	}
	for _, p := range parts {
		var seconds int
		_, _ = fmt.Sscan(p.Text, &seconds)
		if p.Begun != nil {
			p.Begun()
		}
		_, _ = p.Log.Write([]byte("log of " + p.Text + "\n"))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(seconds) * time.Second):
		}
		switch {
		case strings.Contains(p.Text, "kill") && len(parts) > 1:
			return errors.New("killed")
		case strings.Contains(p.Text, "bad"):
			p.Done(nil, &nix.EvalError{Trace: "error: " + p.Text})
			return nil
		}
		p.Done([]byte(p.Text), nil)
	}
	return nil
}

// ask asks for all texts at once, and gives what each one got.
func (f *fakeNix) ask(ctx context.Context, ev *evaluators, texts ...string) []string {
	got := make([]string, len(texts))
	var group sync.WaitGroup
	for i, text := range texts {
		group.Go(func() {
			value, err := ev.value(ctx, nix.Expression{Text: text, Pure: !strings.Contains(text, "impure")})
			got[i] = string(value)
			if err != nil {
				got[i] = err.Error()
			}
		})
		// In this order.
		synctest.Wait()
	}
	group.Wait()
	return got
}

func lasting(second string, n int) []string { return slices.Repeat([]string{second}, n) }

// TestThoseWhoWaitShareAProcess locks that the first ones show what memory is needed, and how the rest is dealt out.
func TestThoseWhoWaitShareAProcess(t *testing.T) {
	for title, c := range map[string]struct {
		free int64
		want []string // the processes
	}{
		"plenty":         {64 * gb, []string{"1", "20", "1 1 1", "1 1", "1 1", "1", "1", "1"}},
		"not known":      {0, []string{"1", "20", "1 1 1", "1 1", "1 1", "1", "1", "1"}},
		"enough for two": {2*gb + gb/2, []string{"1", "20", "1 1", "1 1", "1 1", "1", "1", "1", "1"}},
		"enough for one": {2 * gb, append([]string{"1", "20"}, lasting("1", 10)...)},
		"not enough":     {gb / 2, append([]string{"1", "20"}, lasting("1", 10)...)},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeNix{peak: func(n int) int64 { return gb + int64(n-1)*gb/2 }}
				// The second one goes on beside all of the others, if it may.
				all := append([]string{"1", "20"}, lasting("1", 10)...)
				got := f.ask(t.Context(), f.evaluators(2, c.free), all...)
				if !slices.Equal(got, all) {
					t.Errorf("got %q", got)
				}
				if !slices.Equal(f.processes, c.want) {
					t.Errorf("processes %q, want %q", f.processes, c.want)
				}
			})
		})
	}
}

// TestOnlyWholeSystemsShowWhatTheyTake locks that an answer without a system, a fault and a process that was killed do not make the next
// processes larger than the memory.
func TestOnlyWholeSystemsShowWhatTheyTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeNix{peak: func(int) int64 { return 1 }}
		ev := f.evaluators(1, 0)
		f.ask(t.Context(), ev, "1 small", "1 bad", "1 small", "1 small")
		synctest.Wait()
		if ev.one != 0 || !slices.Equal(f.processes, []string{"1 small", "1 bad", "1 small", "1 small"}) {
			t.Errorf("one is taken to need %d bytes; processes %q", ev.one, f.processes)
		}
		ev.one = gb
		f.ask(t.Context(), ev, "1", "1 kill", "1", "1 bad", "1", "1 small", "1")
		synctest.Wait()
		if ev.one != gb || ev.next != 0 {
			t.Errorf("one is taken to need %d bytes, and each further one %d; processes %q", ev.one, ev.next, f.processes[4:])
		}
		f.peak = func(n int) int64 { return gb + int64(n-1)*gb/4 }
		f.ask(t.Context(), ev, "1", "1", "1", "1")
		synctest.Wait()
		if ev.one != gb || ev.next != gb/4 {
			t.Errorf("one is taken to need %d bytes, and each further one %d", ev.one, ev.next)
		}
	})
}

// TestEvaluationsFitInMemory locks that memory bounds how many go on side by side, and that one always may.
func TestEvaluationsFitInMemory(t *testing.T) {
	for title, c := range map[string]struct {
		free, peak int64
		want       int
	}{
		"plenty":           {64 * gb, 2 * gb, 4},
		"nothing is known": {0, 0, 4},
		"not enough":       {gb / 2, 2 * gb, 1},
		"enough for two":   {3 * gb, 2 * gb, 2},
		"before the first": {gb + gb/2, 0, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeNix{}
			ev := f.evaluators(4, c.free)
			ev.one = c.peak
			f.ask(t.Context(), ev, lasting("9", 6)...)
			if f.most != c.want {
				t.Errorf("%s: %d at once, want %d", title, f.most, c.want)
			}
		})
	}
}

// TestMemoryThatComesBackIsUsed locks that who waits for memory is not forgotten when it was somebody else who gave it back.
func TestMemoryThatComesBackIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeNix{}
		ev := f.evaluators(2, 0)
		begin := time.Now()
		ev.free = func() int64 {
			if time.Since(begin) < 5*time.Second {
				return gb / 2
			}
			return 64 * gb
		}
		f.ask(t.Context(), ev, "60", "60")
		if took := time.Since(begin); took > 70*time.Second {
			t.Errorf("they took %s, one after the other", took)
		}
	})
}

// TestWhoIsAtFaultFailsAlone locks what becomes of the others in its process, and of a process that fails as a whole.
func TestWhoIsAtFaultFailsAlone(t *testing.T) {
	for title, c := range map[string]struct{ ask, got, processes []string }{
		"one is at fault": {
			[]string{"1", "1", "1 bad", "1", "1", "1"}, []string{"1", "1", "evaluate: 1 bad", "1", "1", "1"},
			[]string{"1", "1 1 bad 1", "1 1", "1"},
		},
		"one ends its process": {
			[]string{"1", "1", "1 kill", "1", "1", "1"}, []string{"1", "1", "1 kill", "1", "1", "1"},
			[]string{"1", "1 1 kill 1", "1 kill", "1", "1", "1"},
		},
		"one is not pure": {
			[]string{"1", "1", "1 impure", "1", "1", "1"}, []string{"1", "1", "1 impure", "1", "1", "1"},
			[]string{"1", "1", "1 impure", "1 1", "1"},
		},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeNix{}
				ev := f.evaluators(1, 0)
				ev.one = gb
				got := f.ask(t.Context(), ev, c.ask...)
				if !slices.Equal(got, c.got) {
					t.Errorf("got %q, want %q", got, c.got)
				}
				if !slices.Equal(f.processes, c.processes) {
					t.Errorf("processes %q, want %q", f.processes, c.processes)
				}
			})
		})
	}
}

// TestWhoLeavesDoesNotStopTheOthers locks that a process ends early only when nobody waits for it, and that who left hears nothing.
func TestWhoLeavesDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeNix{}
		ev := f.evaluators(1, 0)
		ev.one = gb
		ctx, leave := context.WithCancel(t.Context())
		var left bytes.Buffer
		var group sync.WaitGroup
		var value []byte
		var err error
		group.Go(func() { _, _ = ev.value(t.Context(), nix.Expression{Text: "1", Pure: true}) })
		synctest.Wait()
		group.Go(func() { _, err = ev.value(ctx, nix.Expression{Text: "7", Pure: true, Log: &left}) })
		synctest.Wait()
		group.Go(func() { value, _ = ev.value(t.Context(), nix.Expression{Text: "8", Pure: true}) })
		synctest.Wait()
		// For one each, as there are two that wait and one process: see room.
		time.Sleep(3 * time.Second)
		leave()
		begin := time.Now()
		group.Wait()
		if !errors.Is(err, context.Canceled) || string(value) != "8" {
			t.Errorf("who left got %v, and the other %q", err, value)
		}
		if took := time.Since(begin); took != 8*time.Second {
			t.Errorf("the other took %s; a process that nobody waits for went on", took)
		}
		if left.String() != "log of 7\n" {
			t.Errorf("who left heard %q", left.String())
		}
	})
}

// TestAGroupGoesOnWithoutOneOfIt is the same in one process.
func TestAGroupGoesOnWithoutOneOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeNix{}
		ev := f.evaluators(1, 0)
		ev.one = gb
		ctx, leave := context.WithCancel(t.Context())
		var group sync.WaitGroup
		var left bytes.Buffer
		got := make([]string, 4)
		for i, text := range []string{"1", "2", "3", "4"} {
			group.Go(func() {
				own, log := t.Context(), &bytes.Buffer{}
				if text == "3" {
					own, log = ctx, &left
				}
				value, err := ev.value(own, nix.Expression{Text: text, Pure: true, Log: log})
				got[i] = fmt.Sprint(string(value), err)
			})
			synctest.Wait()
		}
		// The first is alone, the next two are together.
		time.Sleep(2 * time.Second)
		leave()
		group.Wait()
		if want := []string{"1<nil>", "2<nil>", "evaluate: context canceled", "4<nil>"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if want := []string{"1", "2 3", "4"}; !slices.Equal(f.processes, want) {
			t.Errorf("processes %q, want %q", f.processes, want)
		}
		if left.Len() > 0 {
			t.Errorf("who left before its turn heard %q", left.String())
		}
	})
}

// TestNodesShareProcessesOfNix locks with real Nix that a shared process gives every node what it gets alone, and its own error.
func TestNodesShareProcessesOfNix(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	inventory := ""
	for i := range 9 {
		name := fmt.Sprintf("n%d", i)
		inventory += fmt.Sprintf("nodes.%[1]s = { configuration = ./%[1]s.nix; };\n", name)
		files[name+".nix"] = fmt.Sprintf(`{ text = builtins.trace "beware of %[1]s" "hello %[1]s"; }`, name)
	}
	files["n5.nix"] = `{ text = throw "n5 is wrong"; }`
	files["n7.nix"] = `{ text = "at ${toString builtins.currentTime}"; }`
	files["ferry.nix"] = "{ nixpkgs = " + `"` + pinPath(t) + `"` + ";\n" + inventory + "}"
	write(t, dir, files)
	evaluated := func(together bool) (got []string, processes int64) {
		t.Helper()
		var count atomic.Int64
		client := newClient(t)
		client.Runner = &run.Runner{Trace: func(argv []string) {
			if filepath.Base(argv[0]) == "nix-instantiate" {
				count.Add(1)
			}
		}}
		inv, err := Open(t.Context(), client, Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		inv.evaluators.one = 1 << 20
		count.Store(0)
		got = make([]string, len(inv.Nodes()))
		var group sync.WaitGroup
		for i, node := range inv.Nodes() {
			one := func() {
				var log bytes.Buffer
				e, err := inv.Evaluate(t.Context(), node, &log, nil)
				if err == nil && e.Impure != "" {
					// It has another derivation every second.
					e = &Evaluation{Impure: "so it is"}
				}
				got[i] = fmt.Sprint(e, err, log.String())
			}
			if together {
				group.Go(one)
			} else {
				one()
			}
		}
		group.Wait()
		return got, count.Load()
	}
	alone, each := evaluated(false)
	shared, fewer := evaluated(true)
	for i := range alone {
		if alone[i] != shared[i] {
			t.Errorf("alone %s\ntogether %s", alone[i], shared[i])
		}
	}
	if !strings.Contains(shared[5], "n5 is wrong") || !strings.Contains(shared[0], "beware of n0") {
		t.Errorf("got %q", shared)
	}
	if fewer >= each {
		t.Errorf("%d processes instead of %d", fewer, each)
	}
}
