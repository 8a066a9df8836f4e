package server

import (
	"encoding/json"
	"os"
	"path/filepath"

	"ferry/internal/agent"
)

// shownFile is in a job's folder, and the only file there that everybody may read: who deploys what, and how far it is. `ferry
// status` asks for that without root. All else in the folder is root's: a log has in it what the system's own scripts print, and
// whoever can open a file can hold a lock on it.
const shownFile = "shown"

// shown is what shownFile says.
type shown struct {
	agent.Lock
	Toplevel string `json:"toplevel"`
	// Phase and Deadline are guardState's; without a phase it is no guarded switch, or one that has not begun.
	Phase    agent.Phase `json:"phase,omitempty"`
	Deadline int64       `json:"deadline,omitempty"`
}

// publish writes shownFile for the job in dir. That it cannot be written is no reason to fail.
func publish(dir string, job Job, phase agent.Phase, deadline int64) {
	text, err := json.Marshal(shown{
		Lock:     agent.Lock{Who: job.Who, From: job.Server.clientHost(), Bundle: string(job.Bundle)},
		Toplevel: string(job.Toplevel), Phase: phase, Deadline: deadline,
	})
	if err == nil {
		_ = writeWhole(filepath.Join(dir, shownFile), text, 0o644)
	}
}

func readShown(dir string) (s shown, err error) {
	text, err := os.ReadFile(filepath.Join(dir, shownFile))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}
