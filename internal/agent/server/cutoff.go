package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// beforeFile is in the folder of a commit that no switch does: what was there before, for whoever undoes it. It is there from
// before anything changes.
const beforeFile = "before"

// commitAlone does a commit that no switch does, and writes down what it undoes where it is killed.
func commitAlone(ctx context.Context, r machine.Root, dir string, job Job, log *os.File) jobStatus {
	before := currentState(r)
	text, err := json.Marshal(before)
	if err == nil {
		err = writeFile(filepath.Join(dir, beforeFile), text)
	}
	if err != nil {
		return jobStatus{Status: -1, Error: run.Clean(fmt.Sprintf("write down what is there: %v", err))}
	}
	status := commitJob(ctx, r, job, log)
	recordCommit(r, job, before, status, log)
	return status
}

// cutOff is a job that was begun by a process which is gone, and did not come to its end. It is systemd that starts such a
// job again.
func cutOff(dir string) bool {
	_, ended, err := readStatus(dir)
	return err == nil && !ended && fileExists(filepath.Join(dir, begunFile))
}

// undoCutOff puts back what a commit has changed whose process was killed: nobody has said which of both is meant to be kept, and
// what was there before is whole.
func undoCutOff(ctx context.Context, r machine.Root, dir string, job Job, log *os.File) jobStatus {
	// What the killed process has started is in the same unit.
	endStragglers()
	text, err := os.ReadFile(filepath.Join(dir, beforeFile))
	if errors.Is(err, os.ErrNotExist) {
		return jobStatus{Status: -1, Error: "it was killed before it began"}
	}
	var before agent.JournalState
	if err == nil {
		err = json.Unmarshal(text, &before)
	}
	if err != nil {
		return jobStatus{Status: -1, Error: run.Clean("it was killed, and what was there before is not known: " + err.Error()), Unclean: true}
	}
	_, _ = fmt.Fprintln(log, "ferry: the process that was committing was killed: putting back what boots")
	c := &committer{root: r, runner: new(run.Runner), job: job, log: log, before: before}
	status := jobStatus{Status: -1, Error: "it was killed"}
	if err := c.undo(ctx, true); err != nil {
		status.Error, status.Unclean = joined(status.Error, run.Clean(err.Error())), true
	}
	recordCommit(r, job, before, status, log)
	return status
}

// startedAgain is what else is followed of a commit: systemd starts it again when it was killed.
func startedAgain(dir string) *watch {
	var gone time.Time
	return &watch{
		look: func() {},
		pass: func() (bool, error) { return false, nil },
		died: func() bool {
			if gone.IsZero() || running(dir) {
				gone = time.Now()
			}
			return time.Since(gone) < successorGrace
		},
	}
}
