package server

import (
	"path/filepath"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// ownFolders finds out whether the folders that ferry keeps things in as root are root's alone, as far as they are there: a
// service that has RuntimeDirectory=ferry, StateDirectory=ferry or LogsDirectory=ferry makes one of them its own, and could then
// put anything in the place of what the agent writes there. The folder of the journal may lie in one that others write to, as
// some systems have it; the rest may not.
func ownFolders(r machine.Root) error {
	for _, folder := range []string{machine.RunFolder, agent.Folder, trialFolder} {
		if err := r.CheckWay(folder); err != nil {
			return err
		}
	}
	for _, folder := range []string{machine.RunFolder, agent.Folder} {
		if err := r.CheckEntries(folder); err != nil {
			return err
		}
	}
	return r.CheckFolder(filepath.Dir(journalFile))
}
