package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/session"
)

// TestWhatIsLeftIsWrittenDown locks that the file says at every moment what --resume has to do: while nodes are on their way,
// and when some have failed.
func TestWhatIsLeftIsWrittenDown(t *testing.T) {
	file := LastFile(t.TempDir(), "/a/ferry.nix")
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{t: t, fails: map[string]func(func(session.Step) error) error{"b": failing(session.Build, session.Unchanged, errors.New("no"))}}
		fl := f.fleet(Options{MaxFailures: -1, Parallel: 1}, "a", "b", "c")
		fl.last = newLast(file, "/a/ferry.nix", "switch", fl.nodes)
		found := make(chan []string, 1)
		time.AfterFunc(500*time.Millisecond, func() {
			last, err := ReadLast(file)
			if err != nil {
				t.Error(err)
			}
			found <- last.Rest()
		})
		fl.run(t.Context())
		if during := <-found; !slices.Equal(during, []string{"a", "b", "c"}) {
			t.Errorf("while all are on their way, %q are left", during)
		}
		last, err := ReadLast(file)
		if err != nil || !slices.Equal(last.Rest(), []string{"b"}) || last.Action != "switch" {
			t.Errorf("afterwards the file says %+v, %v", last, err)
		}
	})
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		t.Errorf("left over: %s", left)
	}
}

// TestAFileThatCannotBeReadIsAnError locks that it is not taken for nothing to do.
func TestAFileThatCannotBeReadIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "last.json")
	for text, want := range map[string]string{"{": "unexpected end", `{"format": 2}`: "format 2 is another ferry's"} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadLast(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestAPlaceThatCannotBeWrittenIsNoted locks that the deployment itself goes on.
func TestAPlaceThatCannotBeWrittenIsNoted(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{t: t}
		var notes []string
		fl := f.fleet(Options{Note: func(text string) { notes = append(notes, text) }}, "a", "b")
		fl.last = newLast(LastFile(blocked, "x"), "x", "switch", fl.nodes)
		if got := statusesOf(fl.run(t.Context())); got != "a: done, b: done" {
			t.Errorf("got %s", got)
		}
		if len(notes) != 1 || !strings.HasPrefix(notes[0], "--resume will not know") {
			t.Errorf("notes: %q", notes)
		}
	})
}
