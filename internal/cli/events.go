package cli

import (
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"ferry/internal/action"
	"ferry/internal/fleet"
	"ferry/internal/inventory"
	"ferry/internal/run"
	"ferry/internal/session"
)

// eventsVersion is that of doc/events.md. It goes up when a field changes its meaning or goes away; a new field or a new kind of event
// does not change it.
const eventsVersion = 1

// timeLayout is RFC 3339 in UTC with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// eventPause is the time between two events that tell how far a node is in the same step.
const eventPause = 500 * time.Millisecond

// events writes what happens as JSON, one event per line. It is safe for use by several goroutines.
type events struct {
	now func() time.Time

	mu       sync.Mutex
	encoder  *json.Encoder
	err      error // the first that writing met; nothing is written after it
	progress map[string]time.Time
}

func newEvents(w io.Writer, now func() time.Time) *events {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return &events{now: now, encoder: encoder, progress: map[string]time.Time{}}
}

// eventJSON is one line. Which fields are there follows from Event; doc/events.md says it.
type eventJSON struct {
	Event string `json:"event"`
	Time  string `json:"time"`
	Node  string `json:"node,omitempty"`
	Step  string `json:"step,omitempty"`
	Text  string `json:"text,omitempty"`

	*beginJSON
	*durationJSON
	*buildingJSON
	*shippingJSON
	*sentJSON
	*batchJSON
	*endedJSON
	*endJSON
}

type beginJSON struct {
	Version   int      `json:"version"`
	Ferry     string   `json:"ferry"`
	Inventory string   `json:"inventory"`
	Action    string   `json:"action"`
	Nodes     []string `json:"nodes"`
}

type durationJSON struct {
	Seconds float64 `json:"seconds"`
}

type buildingJSON struct {
	Done         int      `json:"done"`
	Expected     int      `json:"expected"`
	Running      []string `json:"running"`
	FetchedBytes uint64   `json:"fetchedBytes"`
	FetchBytes   uint64   `json:"fetchBytes"`
}

type shippingJSON struct {
	Paths      int    `json:"paths"`
	TotalPaths int    `json:"totalPaths"`
	Bytes      uint64 `json:"bytes"`
	TotalBytes uint64 `json:"totalBytes"`
	WireBytes  uint64 `json:"wireBytes"`
}

type sentJSON struct {
	Path       string   `json:"path"`
	NarBytes   uint64   `json:"narBytes"`
	AddedBytes uint64   `json:"addedBytes"`
	Bases      []string `json:"bases"`
}

type batchJSON struct {
	Batch   int `json:"batch"`
	Batches int `json:"batches"`
	Size    int `json:"size"`
}

type endedJSON struct {
	Status      string       `json:"status"`
	Outcome     string       `json:"outcome"`
	Bundle      string       `json:"bundle"`
	Toplevel    string       `json:"toplevel"`
	Generation  int          `json:"generation"`
	NeedsReboot string       `json:"needsReboot"`
	FailedUnits []string     `json:"failedUnits"`
	Shipped     *shippedJSON `json:"shipped"`
	Error       *errorJSON   `json:"error"`
}

type shippedJSON struct {
	Paths     int    `json:"paths"`
	Bytes     uint64 `json:"bytes"`
	WireBytes uint64 `json:"wireBytes"`
}

type errorJSON struct {
	Step    string   `json:"step"`
	Message string   `json:"message"`
	Output  []string `json:"output"`
	Hints   []string `json:"hints"`
}

type endJSON struct {
	Exit    int                     `json:"exit"`
	Failure *errorJSON              `json:"failure"`
	Summary map[fleet.Status]int    `json:"summary"`
	Of      map[string]fleet.Status `json:"of"`
}

func (w *events) write(e eventJSON) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(e)
}

func (w *events) put(e eventJSON) {
	if w.err == nil {
		e.Time = w.now().UTC().Format(timeLayout)
		w.err = w.encoder.Encode(e)
	}
}

// begin tells what is about to be done.
func (w *events) begin(inv *inventory.Inventory, nodes []inventory.Node, act action.Action) {
	b := &beginJSON{Version: eventsVersion, Ferry: Version, Inventory: inv.File, Action: string(act), Nodes: []string{}}
	for _, n := range nodes {
		b.Nodes = append(b.Nodes, n.Name)
	}
	w.write(eventJSON{Event: "begin", beginJSON: b})
}

// observe tells an event of a node.
func (w *events) observe(e session.Event) {
	line := eventJSON{Event: string(e.Kind), Node: e.Node, Step: string(e.Step), Text: run.Clean(e.Text)}
	switch e.Kind {
	case session.Finished:
		line.durationJSON = &durationJSON{e.Duration.Seconds()}
	case session.Building:
		b := e.Build
		line.buildingJSON = &buildingJSON{b.Done, b.Expected, append([]string{}, b.Running...), b.FetchedBytes, b.FetchBytes}
	case session.Shipping:
		s := e.Ship
		line.shippingJSON = &shippingJSON{s.Paths, s.TotalPaths, s.Bytes, s.TotalBytes, s.Wire}
	case session.PathSent:
		sent := &sentJSON{Path: string(e.Sent.Path), NarBytes: e.Sent.Bytes, AddedBytes: e.Sent.Added, Bases: []string{}}
		if len(e.Sent.Bases) == 0 {
			sent.AddedBytes = sent.NarBytes
		}
		for _, base := range e.Sent.Bases {
			sent.Bases = append(sent.Bases, string(base))
		}
		line.sentJSON = sent
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Kind == session.Building || e.Kind == session.Shipping {
		if now := w.now(); now.Sub(w.progress[e.Node]) < eventPause {
			return
		}
		w.progress[e.Node] = w.now()
	}
	w.put(line)
}

// note tells something about no node in particular.
func (w *events) note(text string) {
	w.write(eventJSON{Event: string(session.Note), Text: run.Clean(text)})
}

// batch tells that a batch may be changed.
func (w *events) batch(number, of, nodes int) {
	w.write(eventJSON{Event: "batch", batchJSON: &batchJSON{number, of, nodes}})
}

// ended tells what became of a node.
func (w *events) ended(o fleet.Outcome) {
	r := o.Result
	e := &endedJSON{
		Status: string(o.Status), Outcome: string(r.Outcome), Bundle: string(r.Bundle), Toplevel: string(r.Toplevel),
		Generation: r.Generation, NeedsReboot: r.NeedsReboot, FailedUnits: append([]string{}, r.Failed...),
		Shipped: &shippedJSON{r.Shipped.Paths, r.Shipped.Bytes, r.Shipped.Wire}, Error: newErrorJSON(o.Err),
	}
	w.write(eventJSON{Event: "ended", Node: o.Node.Name, durationJSON: &durationJSON{o.Duration.Seconds()}, endedJSON: e})
}

// end is the last line. err is why nothing was done, or not all that should have been.
func (w *events) end(exit int, err error, outcomes []fleet.Outcome) error {
	e := &endJSON{Exit: exit, Failure: newErrorJSON(err), Summary: map[fleet.Status]int{}, Of: map[string]fleet.Status{}}
	for _, s := range statuses {
		e.Summary[s] = 0
	}
	for _, o := range outcomes {
		e.Summary[o.Status]++
		e.Of[o.Node.Name] = o.Status
	}
	w.write(eventJSON{Event: "end", endJSON: e})
	return w.err
}

func newErrorJSON(err error) *errorJSON {
	if err == nil {
		return nil
	}
	e := &errorJSON{Message: message(err), Output: append([]string{}, session.Output(err)...), Hints: []string{}}
	var failed *session.Error
	if errors.As(err, &failed) {
		e.Step = string(failed.Step)
	}
	var with interface{ Hints() []string }
	if errors.As(err, &with) {
		for _, hint := range with.Hints() {
			e.Hints = append(e.Hints, oneLine(hint))
		}
	}
	return e
}
