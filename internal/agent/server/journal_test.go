package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"

	"golang.org/x/sys/unix"
)

// entryOf is an entry of a deployment that went well.
func entryOf(id string) agent.JournalEntry {
	return agent.JournalEntry{
		ID: id, Time: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC), Who: "bob@laptop", From: "192.0.2.7", Action: "switch", Node: "pi",
		Bundle: string(newBundle), Toplevel: string(newSystem), Revision: "0123456789abcdef0123456789abcdef01234567", Version: "24.05",
		Before:  agent.JournalState{Current: string(oldSystem), Profile: string(oldSystem), Generation: 1, Bundle: string(oldBundle)},
		After:   agent.JournalState{Current: string(newSystem), Profile: string(newSystem), Generation: 2, Bundle: string(newBundle)},
		Outcome: agent.JournalCommitted,
	}
}

func mustAppend(t *testing.T, r machine.Root, e agent.JournalEntry) {
	t.Helper()
	if err := appendJournal(r, e); err != nil {
		t.Fatal(err)
	}
}

func ids(entries []agent.JournalEntry) string {
	var names []string
	for _, e := range entries {
		names = append(names, e.ID)
	}
	return strings.Join(names, " ")
}

// TestWhatIsWrittenInTheJournalIsReadBack locks the form of a line, which others may read, and that it comes back the same.
func TestWhatIsWrittenInTheJournalIsReadBack(t *testing.T) {
	m := newMachine(t)
	e := entryOf("one")
	e.Reason = "<the \"link\" is down>"
	mustAppend(t, m.Root, e)
	want := `{"id":"one","time":"2026-05-04T03:02:01Z","who":"bob@laptop","from":"192.0.2.7","action":"switch","node":"pi",` +
		`"bundle":"/nix/store/33333333333333333333333333333333-ferry-pi","toplevel":"/nix/store/11111111111111111111111111111111-new",` +
		`"revision":"0123456789abcdef0123456789abcdef01234567","version":"24.05",` +
		`"before":{"current":"/nix/store/00000000000000000000000000000000-old","profile":"/nix/store/00000000000000000000000000000000-old",` +
		`"generation":1,"bundle":"/nix/store/22222222222222222222222222222222-ferry-pi"},` +
		`"after":{"current":"/nix/store/11111111111111111111111111111111-new","profile":"/nix/store/11111111111111111111111111111111-new",` +
		`"generation":2,"bundle":"/nix/store/33333333333333333333333333333333-ferry-pi"},` +
		`"outcome":"committed","reason":"<the \"link\" is down>"}` + "\n"
	if got := m.Read(journalFile); got != want {
		t.Errorf("the line is\n%swant\n%s", got, want)
	}
	if got := readJournal(m.Root, 5); len(got) != 1 || !reflect.DeepEqual(got[0], e) {
		t.Errorf("read back: %+v", got)
	}
	for name, mode := range map[string]os.FileMode{journalFile: 0o644, filepath.Dir(journalFile): 0o755 | os.ModeDir} {
		if info, err := os.Stat(m.Path(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// TestAnEntryWithoutATimeGetsThePresentOne is for callers that write when it has just happened.
func TestAnEntryWithoutATimeGetsThePresentOne(t *testing.T) {
	m := newMachine(t)
	e := entryOf("one")
	e.Time = time.Time{}
	begin := time.Now().Truncate(time.Second)
	mustAppend(t, m.Root, e)
	if got := readJournal(m.Root, 1); len(got) != 1 || got[0].Time.Before(begin) || got[0].Time.Location() != time.UTC {
		t.Errorf("%+v", got)
	}
}

// TestTheNewestEntriesAreReadLast reads fewer than there are.
func TestTheNewestEntriesAreReadLast(t *testing.T) {
	m := newMachine(t)
	for i := range 300 {
		mustAppend(t, m.Root, entryOf(fmt.Sprint(i)))
	}
	if got := ids(readJournal(m.Root, 3)); got != "297 298 299" {
		t.Errorf("%s", got)
	}
	if got := readJournal(m.Root, 1000); len(got) != 300 || got[0].ID != "0" || got[299].ID != "299" {
		t.Errorf("%d entries", len(got))
	}
	if got := readJournal(m.Root, 0); len(got) != 0 {
		t.Errorf("%s", ids(got))
	}
}

// TestTheJournalIsRotatedAndKeepsTheNewest fills it more than twice.
func TestTheJournalIsRotatedAndKeepsTheNewest(t *testing.T) {
	m := newMachine(t)
	e := entryOf("x")
	e.Reason = strings.Repeat("because ", 200)
	perFile := maxJournal / 2400
	last := 3 * perFile
	for i := range last {
		e.ID = fmt.Sprint(i)
		mustAppend(t, m.Root, e)
	}
	for _, name := range []string{journalFile, rotatedJournal} {
		if info, err := os.Stat(m.Path(name)); err != nil || info.Size() > maxJournal {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if rest, _ := filepath.Glob(m.Path(journalFile) + "*"); len(rest) != 2 {
		t.Errorf("there are %q", rest)
	}
	got := readJournal(m.Root, last)
	if len(got) < perFile {
		t.Fatalf("only %d entries are left", len(got))
	}
	for i, e := range got {
		if want := fmt.Sprint(last - len(got) + i); e.ID != want {
			t.Fatalf("entry %s where %s was expected", e.ID, want)
		}
	}
}

// TestManyWritersLoseNothing has several append at once across a rotation.
func TestManyWritersLoseNothing(t *testing.T) {
	m := newMachine(t)
	m.Write(journalFile, strings.Repeat("x", maxJournal-20_000)+"\n")
	const writers, each = 8, 10
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				if err := appendJournal(m.Root, entryOf(fmt.Sprintf("%d-%d", w, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got := readJournal(m.Root, 1000); len(got) != writers*each {
		t.Errorf("%d entries of %d", len(got), writers*each)
	}
	if !m.Exists(rotatedJournal) {
		t.Error("it was not rotated: the test shows nothing")
	}
}

// TestAWriterWaitsForAnother holds the lock as one does that is about to rotate.
func TestAWriterWaitsForAnother(t *testing.T) {
	m := newMachine(t)
	held, err := openLock(m.Path(journalLock))
	if err == nil {
		err = syscall.Flock(int(held.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- appendJournal(m.Root, entryOf("one")) }()
	select {
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || ids(readJournal(m.Root, 5)) != "one" {
		t.Errorf("after that: %v", err)
	}
}

// TestAJournalThatCannotBeRotatedGrowsOn prefers the newest entry to the limit, and says so.
func TestAJournalThatCannotBeRotatedGrowsOn(t *testing.T) {
	m := newMachine(t)
	m.Write(journalFile, strings.Repeat("x", maxJournal)+"\n")
	m.Write(rotatedJournal+"/in-the-way", "")
	if err := appendJournal(m.Root, entryOf("newest")); err == nil || !strings.Contains(err.Error(), "journal: ") {
		t.Errorf("got %v", err)
	}
	if got := ids(readJournal(m.Root, 5)); got != "newest" {
		t.Errorf("%q", got)
	}
}

// TestATornLineCostsOnlyItself goes through what may stand in the file besides entries.
func TestATornLineCostsOnlyItself(t *testing.T) {
	whole, err := json.Marshal(entryOf("whole"))
	if err != nil {
		t.Fatal(err)
	}
	line := string(whole) + "\n"
	late := strings.Replace(line, "2026-05-04T03:02:01Z", "9999-12-31T23:59:59-23:59", 1)
	for name, c := range map[string]struct{ text, want string }{
		"nothing":             {"", "new"},
		"torn at the end":     {line + line[:100], "whole new"},
		"torn in the middle":  {line[:100] + "\n" + line, "whole new"},
		"torn, then whole":    {line[:100] + line, "new"},
		"empty lines":         {"\n\n" + line + "\n", "whole new"},
		"no last newline":     {line + string(whole), "whole whole new"},
		"other text":          {"May 4 sshd[1]: hello\n" + line, "whole new"},
		"another's JSON":      {"{}\n[]\n3\nnull\n\"x\"\n{\"id\":1}\n{\"id\":\"a\"}\n" + line, "whole new"},
		"NUL bytes":           {line + strings.Repeat("\x00", 3000), "whole new"},
		"an endless line":     {line + strings.Repeat("y", 200_000) + "\n" + line, "whole whole new"},
		"an endless torn one": {line + strings.Repeat("y", 200_000), "whole new"},
		"a long one first":    {strings.Repeat("y", 200_000) + "\n" + line, "whole new"},
		"nested too deeply":   {strings.Repeat("[", 15_000) + "\n" + line, "whole new"},
		"a time out of range": {late + line, "whole new"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &fakeMachine{machinetest.New(t)}
			m.Write(journalFile, c.text)
			mustAppend(t, m.Root, entryOf("new"))
			if got := ids(readJournal(m.Root, 10)); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestAFullDiskIsAnErrorAndTearsNoLine writes to a device that is always full, and to a file that may grow for half a line.
func TestAFullDiskIsAnErrorAndTearsNoLine(t *testing.T) {
	m := newMachine(t)
	m.Write(filepath.Dir(journalFile)+"/.keep", "")
	// As /dev/full is: the journal is never a link.
	if err := unix.Mknod(m.Path(journalFile), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 7))); err != nil {
		t.Fatal(err)
	}
	err := appendJournal(m.Root, entryOf("one"))
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v", err)
	}
	if got := readJournal(m.Root, 5); len(got) != 0 {
		t.Errorf("read %d entries of a device", len(got))
	}

	m = newMachine(t)
	mustAppend(t, m.Root, entryOf("one"))
	before := m.Read(journalFile)
	child := exec.Command(os.Args[0], "append", strconv.Itoa(len(before)*3/2))
	child.Env = append(os.Environ(), "FERRY_TEST_ROOT="+m.Path(""))
	said, err := child.CombinedOutput()
	if got := m.Read(journalFile); err == nil || !strings.Contains(string(said), "file too large") || got != before {
		t.Errorf("%v, %s, and the journal is\n%s", err, said, got)
	}
}

// appendWithin appends an entry to the journal as a process of its own, no file of which may be larger than limit, in bytes: the
// testing package's files would count too. It gives the exit status.
func appendWithin(limit string) int {
	size, err := strconv.ParseUint(limit, 10, 64)
	signal.Ignore(syscall.SIGXFSZ)
	if err == nil {
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size})
	}
	if err == nil {
		err = appendJournal(machine.Root{Dir: os.Getenv("FERRY_TEST_ROOT")}, entryOf("two"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestReadingTheJournalWaitsForNobody reads where a pipe or nothing is.
func TestReadingTheJournalWaitsForNobody(t *testing.T) {
	m := newMachine(t)
	if got := readJournal(m.Root, 5); len(got) != 0 {
		t.Errorf("%d entries of nothing", len(got))
	}
	m.Write(journalFile+"/folder", "")
	if got := readJournal(m.Root, 5); len(got) != 0 {
		t.Errorf("%d entries of a folder", len(got))
	}
	if err := appendJournal(m.Root, entryOf("one")); err == nil {
		t.Error("a folder was written to")
	}
}

// FuzzJournal reads anything, and an entry that stands behind it.
func FuzzJournal(f *testing.F) {
	whole, err := json.Marshal(entryOf("whole"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, whole, whole[:len(whole)/2], append(slices.Clone(whole), '\n'), bytes.Repeat([]byte("\n"), 40_000),
		bytes.Repeat([]byte("x"), 70_000), []byte("{}\n"), []byte(`{"id":"a","time":"0000-01-01T00:00:00+23:00","outcome":"b"}`)} {
		f.Add(seed)
	}
	read := func(text []byte) (entries []agent.JournalEntry) {
		entriesIn(bytes.NewReader(text), int64(len(text)), func(e agent.JournalEntry) bool {
			entries = append(entries, e)
			return true
		})
		return entries
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := read(text)
		for _, e := range before {
			clean := e
			if clean.Clean(); !reflect.DeepEqual(clean, e) {
				t.Errorf("not clean: %+v", e)
			}
			if _, err := json.Marshal(e); err != nil {
				t.Error(err)
			}
		}
		after := read(slices.Concat(text, []byte{'\n'}, whole))
		if len(after) != len(before)+1 || !reflect.DeepEqual(after[0], entryOf("whole")) {
			t.Errorf("%d entries before and %d after", len(before), len(after))
		}
	})
}
