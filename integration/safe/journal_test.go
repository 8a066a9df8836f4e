package safe_test

import (
	"encoding/json"
	"strings"

	"ferry/internal/agent"
)

// journal is what the target remembers of its deployments, the oldest first.
func (x *trial) journal() []agent.JournalEntry {
	x.T.Helper()
	var entries []agent.JournalEntry
	for line := range strings.Lines(x.OnTarget("cat", "/var/log/ferry/deployments.jsonl")) {
		var e agent.JournalEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			x.T.Fatalf("a line of the journal: %q: %v", line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

// lastEntry is the newest of them.
func (x *trial) lastEntry() agent.JournalEntry {
	x.T.Helper()
	entries := x.journal()
	if len(entries) == 0 {
		x.T.Fatal("the journal is empty")
	}
	return entries[len(entries)-1]
}
