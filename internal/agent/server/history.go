package server

import (
	"encoding/json"
	"slices"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// readHistory gives the newest entries of the journal, at most limit of them and no more than fit into an answer.
func readHistory(r machine.Root, limit int) (*agent.HistoryResult, error) {
	limit = max(0, min(limit, agent.MaxHistory))
	result := &agent.HistoryResult{Entries: []agent.JournalEntry{}}
	size := 0
	for e := range journalEntries(r) {
		text, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		if size += len(text) + 1; size > maxGenerationsSize || len(result.Entries) == limit {
			result.Older = true
			break
		}
		result.Entries = append(result.Entries, e)
	}
	slices.Reverse(result.Entries)
	return result, nil
}
