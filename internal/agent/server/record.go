package server

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// record adds the switch to the target's journal. That it cannot be written is no reason to fail.
func (g *guard) record(status jobStatus) {
	outcomes := map[agent.SwitchOutcome]agent.JournalOutcome{
		agent.SwitchCommitted: agent.JournalCommitted, agent.SwitchActivated: agent.JournalActivated, agent.SwitchRefused: agent.JournalUnchanged,
		agent.SwitchRolledBack: agent.JournalRolledBack, agent.SwitchStranded: agent.JournalFailed,
		agent.SwitchOvertaken: agent.JournalFailed,
	}
	e := journalEntry(g.root, g.job, g.state.Before.JournalState, outcomes[status.Outcome], joined(status.Reason, status.Trouble))
	e.ID = strings.TrimSuffix(filepath.Base(g.dir), "-"+string(JobSwitch))
	e.UserUnits = status.UserUnits
	if err := appendJournal(g.root, e); err != nil {
		g.say("%v", err)
	}
}

// recordCommit adds a commit without a switch to the journal: an action boot, or a configuration that makes the same system.
func recordCommit(r machine.Root, job Job, before agent.JournalState, status jobStatus, log io.Writer) {
	outcome, reason := agent.JournalFailed, commitReason(status)
	if status.Status == 0 && status.Error == "" {
		outcome, reason = agent.JournalInstalled, ""
		if r.StorePath("/run/current-system") == string(job.Toplevel) {
			outcome = agent.JournalCommitted
		}
	}
	e := journalEntry(r, job, before, outcome, reason)
	e.ID = job.Session
	if err := appendJournal(r, e); err != nil {
		_, _ = fmt.Fprintf(log, "ferry: %v\n", err)
	}
}

// journalEntry is the journal's of a job that is over.
func journalEntry(r machine.Root, job Job, before agent.JournalState, outcome agent.JournalOutcome, reason string) agent.JournalEntry {
	m := readManifest(r, string(job.Bundle))
	return agent.JournalEntry{
		Who: job.Who, From: job.Server.clientHost(), Action: cmp.Or(job.Record.Action, job.Action), Node: cmp.Or(m.Node, job.Record.Node),
		Bundle: string(job.Bundle), Toplevel: string(job.Toplevel), Revision: m.Revision, Dirty: m.Dirty, Version: nixosVersion(r, string(job.Toplevel)),
		Before: before, After: currentState(r), Outcome: outcome, Reason: reason,
	}
}
