package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

const (
	// journalFile has a line of JSON for each deployment; see doc/journal.md.
	journalFile = "/var/log/ferry/deployments.jsonl"
	// rotatedJournal is the journal's older half.
	rotatedJournal = journalFile + ".1"
	// journalLock is held for the time of one write: two that rotate at once would lose a file.
	journalLock = machine.RunFolder + "/journal"
	// maxJournal is how long the file may become, in bytes, before it is rotated.
	maxJournal = 1 << 20
	// maxJournalLine is the longest line that is read, in bytes. What is written is much shorter.
	maxJournalLine = 16 << 10
)

// appendJournal adds an entry to the journal. It is on the disk when the error is nil. An entry without a time gets the
// present one. A deployment does not depend on it: the caller may go on after an error, such as a full disk.
func appendJournal(r machine.Root, e agent.JournalEntry) error {
	e.Clean()
	if e.Time.IsZero() {
		e.Time = time.Now().UTC().Truncate(time.Second)
	}
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(e)
	if err == nil {
		err = writeJournal(r, line.Bytes())
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func writeJournal(r machine.Root, line []byte) error {
	held, err := openLock(r.Path(journalLock))
	if err != nil {
		return err
	}
	defer held.Close()
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	name := r.Path(journalFile)
	if err := machine.OwnFolder(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	var rotated error
	if info, err := os.Stat(name); err == nil && info.Size() > 0 && info.Size()+int64(len(line)) > maxJournal {
		// A journal that cannot be rotated grows on: the newest entry is worth more than the limit.
		rotated = os.Rename(name, r.Path(rotatedJournal))
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return errors.Join(rotated, err)
	}
	defer file.Close()
	return errors.Join(rotated, appendLine(r, file, line))
}

// appendLine adds a line in one write, whole or not at all, and brings it to the disk.
func appendLine(r machine.Root, file *os.File, line []byte) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	last := []byte{'\n'}
	if size > 0 {
		if _, err := file.ReadAt(last, size-1); err != nil {
			return err
		}
	}
	if last[0] != '\n' {
		// A line that was torn, by a power cut, must not take this one with it.
		line = slices.Concat([]byte{'\n'}, line)
	}
	if _, err := file.Write(line); err != nil {
		_ = file.Truncate(size)
		return err
	}
	return r.Disk.SyncFile(file)
}

// readJournal gives the newest n entries, the newest last.
func readJournal(r machine.Root, n int) []agent.JournalEntry {
	var entries []agent.JournalEntry
	for e := range journalEntries(r) {
		if len(entries) >= n {
			break
		}
		entries = append(entries, e)
	}
	slices.Reverse(entries)
	return entries
}

// journalEntries gives the entries of both files, the newest first. Lines that are no entries are passed over: torn ones, too long
// ones, and what others may have written. It reads no more than it is asked for, and holds one block and one line.
func journalEntries(r machine.Root) iter.Seq[agent.JournalEntry] {
	return func(yield func(agent.JournalEntry) bool) {
		for _, name := range []string{journalFile, rotatedJournal} {
			if !eachEntry(r.Path(name), yield) {
				return
			}
		}
	}
}

// eachEntry tells whether yield wants more.
func eachEntry(name string, yield func(agent.JournalEntry) bool) bool {
	// Not to wait for the writer of a pipe that someone has put there.
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return true
	}
	return entriesIn(file, info.Size(), yield)
}

func entriesIn(file io.ReaderAt, size int64, yield func(agent.JournalEntry) bool) bool {
	return linesBackward(file, size, func(line []byte) bool {
		var e agent.JournalEntry
		if json.Unmarshal(line, &e) != nil {
			return true
		}
		e.Clean()
		if e.ID == "" || e.Outcome == "" || e.Time.IsZero() {
			return true
		}
		return yield(e)
	})
}

// linesBackward gives the lines of the first size bytes of file, the last one first, but none that is too long for the
// journal and none from before the last 2 maxJournal bytes. The line is valid until yield returns. It tells whether yield
// wants more.
func linesBackward(file io.ReaderAt, size int64, yield func(line []byte) bool) bool {
	const block = 32 << 10
	buffer := make([]byte, block)
	// held is what has been read of a line whose beginning is in an earlier block, unless that is too much.
	var held []byte
	long := false
	floor := max(0, size-2*maxJournal)
	for pos := size; pos > floor; {
		chunk := buffer[:min(block, pos-floor)]
		pos -= int64(len(chunk))
		if _, err := file.ReadAt(chunk, pos); err != nil {
			return true
		}
		for {
			i := bytes.LastIndexByte(chunk, '\n')
			if i < 0 && (pos > 0 || long) {
				break
			}
			line := slices.Concat(chunk[i+1:], held)
			if !long && len(line) <= maxJournalLine && len(line) > 0 && !yield(line) {
				return false
			}
			held, long = nil, false
			if i < 0 {
				return true
			}
			chunk = chunk[:i]
		}
		if held = slices.Concat(chunk, held); long || len(held) > maxJournalLine {
			held, long = nil, true
		}
	}
	return true
}
