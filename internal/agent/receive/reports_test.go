package receive

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
)

// toldOf are the reports that have been written.
func toldOf(t *testing.T, out *bytes.Buffer) []agent.Progress {
	t.Helper()
	wire := agent.NewWire(out, io.Discard)
	var all []agent.Progress
	for out.Len() > 0 {
		kind, payload, err := wire.Read()
		if err != nil || kind != agent.FrameProgress {
			t.Fatalf("frame %q: %v", kind, err)
		}
		var p agent.Progress
		if err := json.Unmarshal(payload, &p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// TestFerryIsToldAtOnceAndNotTooOftenWhatHasCome: it chooses by that how hard it compresses.
func TestFerryIsToldAtOnceAndNotTooOftenWhatHasCome(t *testing.T) {
	var out bytes.Buffer
	r := &reports{wire: agent.NewWire(strings.NewReader(""), &out)}
	const chunks, length = 3000, 1000
	stream := r.reader(io.LimitReader(zeros{}, chunks*length))
	chunk := make([]byte, length)
	if _, err := io.ReadFull(stream, chunk); err != nil {
		t.Fatal(err)
	}
	if told := toldOf(t, &out); len(told) != 1 || told[0].Received != length {
		t.Fatalf("after the first bytes it is told %+v", told)
	}
	begin := time.Now()
	for range chunks - 1 {
		if _, err := io.ReadFull(stream, chunk); err != nil {
			t.Fatal(err)
		}
		r.registered()
	}
	took := time.Since(begin)
	r.end()
	told := toldOf(t, &out)
	if most := int(took/leastEvery) + 2; len(told) > most {
		t.Errorf("it is told %d times in %v", len(told), took)
	}
	if last := told[len(told)-1]; last.Received != chunks*length || last.Registered != chunks-1 {
		t.Errorf("in the end it is told %+v", last)
	}
	r.end()
	if out.Len() > 0 {
		t.Error("it is told the same twice")
	}
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
