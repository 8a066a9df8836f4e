// Package logs keeps what happened to nodes in files of this machine: a folder for each run of ferry, with a file for each node and
// one about the run. Old runs are removed when a new one begins.
package logs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"ferry/internal/run"
	"ferry/internal/session"
)

// What is kept: so many runs, of so many bytes together, and of each node so many bytes of one run.
const (
	keptRuns  = 100
	keptBytes = 512 << 20
	nodeBytes = 64 << 20
)

// About says what a run was.
type About struct {
	Format    int       `json:"format"`
	Began     time.Time `json:"began"`
	Command   string    `json:"command"`   // as "deploy"
	Inventory string    `json:"inventory"` // its path
	Nodes     []string  `json:"nodes"`
	Ended     time.Time `json:"ended"` // zero while it goes on, or if ferry was killed
	Exit      int       `json:"exit"`  // the exit status, once it has ended
}

const (
	aboutFile = "run.json"
	suffix    = ".log"
	// nameLayout names the runs so that their names sort by time.
	nameLayout = "20060102T150405.000Z"
)

// Run is a run that is being written. Its methods may be called from several goroutines. None of them fails: what cannot be written is
// missing, and Close says why.
type Run struct {
	Name string

	dir   string
	now   func() time.Time
	about About

	mu    sync.Mutex
	nodes map[string]*nodeLog
	err   error
}

// nodeLog is the file of a node.
type nodeLog struct {
	file    *os.File
	written int
}

// Begin begins a run below dir, and removes the oldest ones there that are too many.
func Begin(dir string, about About, now func() time.Time) (*Run, error) {
	began := now()
	about.Format, about.Began = 1, began.UTC()
	r := &Run{now: now, about: about, nodes: map[string]*nodeLog{}}
	// Build logs and activations are for nobody else.
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o755), os.MkdirAll(dir, 0o700)); err != nil {
		return nil, err
	}
	remove(dir)
	for i := 0; ; i++ {
		r.Name = began.UTC().Format(nameLayout)
		if i > 0 {
			r.Name += fmt.Sprintf("-%d", i)
		}
		r.dir = filepath.Join(dir, r.Name)
		err := os.Mkdir(r.dir, 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return r, r.writeAbout()
}

func (r *Run) writeAbout() error {
	text, err := json.MarshalIndent(r.about, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, aboutFile), append(text, '\n'), 0o600)
}

// Observe writes an event into its node's file.
func (r *Run) Observe(e session.Event) {
	text := run.Clean(e.Text)
	switch e.Kind {
	case session.Started:
		r.Write(e.Node, string(e.Step)+": begins")
	case session.Finished:
		line := fmt.Sprintf("%s: done in %.1f s", e.Step, e.Duration.Seconds())
		if text != "" {
			line += ": " + text
		}
		r.Write(e.Node, line)
	case session.PathSent:
		r.Write(e.Node, fmt.Sprintf("ship: %s, %d bytes, %d bases", e.Sent.Path, e.Sent.Bytes, len(e.Sent.Bases)))
	case session.Note:
		r.Write(e.Node, "note: "+text)
	case session.Line:
		r.Write(e.Node, fmt.Sprintf("%s | %s", e.Step, text))
	}
}

// Write writes a line, which is clean, into a node's file.
func (r *Run) Write(node, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = r.put(node, line)
	}
}

func (r *Run) put(node, line string) error {
	log := r.nodes[node]
	if log == nil {
		file, err := os.OpenFile(filepath.Join(r.dir, node+suffix), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		log = &nodeLog{file: file}
		r.nodes[node] = log
	}
	if log.written > nodeBytes {
		return nil
	}
	line = r.now().UTC().Format("15:04:05.000 ") + line + "\n"
	if log.written += len(line); log.written > nodeBytes {
		line = "the rest is not kept: this log is too long\n"
	}
	_, err := log.file.WriteString(line)
	return err
}

// Close ends the run, with ferry's exit status. The error is the first that writing met.
func (r *Run) Close(exit int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.err
	for _, log := range r.nodes {
		err = errors.Join(err, log.file.Close())
	}
	r.about.Ended, r.about.Exit = r.now().UTC(), exit
	return errors.Join(err, r.writeAbout())
}

// Entry is a run that was written.
type Entry struct {
	Name string
	About
	dir string
}

// Log is the path of the file of a node in the run.
func (e Entry) Log(node string) string { return filepath.Join(e.dir, node+suffix) }

// List gives the runs below dir, the newest last. What cannot be read is left out.
func List(dir string) ([]Entry, error) {
	names, err := runs(dir)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, name := range names {
		e := Entry{Name: name, dir: filepath.Join(dir, name)}
		text, err := os.ReadFile(filepath.Join(e.dir, aboutFile))
		if err == nil && json.Unmarshal(text, &e.About) == nil && e.Format == 1 {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// runs are the names of the runs below dir, the oldest first.
func runs(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range list {
		// Nothing is read or removed that is not a run's.
		if name := entry.Name(); entry.IsDir() && len(name) >= len(nameLayout) {
			if _, err := time.Parse(nameLayout, name[:len(nameLayout)]); err == nil {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// remove removes the oldest runs below dir, so that there is room for one more. What cannot be removed is tried again with the
// next run.
func remove(dir string) {
	names, err := runs(dir)
	if err != nil {
		return
	}
	slices.Reverse(names)
	var total int64
	for i, name := range names {
		path := filepath.Join(dir, name)
		total += sizeOf(path)
		if i >= keptRuns-1 || total > keptBytes {
			_ = os.RemoveAll(path)
		}
	}
}

func sizeOf(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}
