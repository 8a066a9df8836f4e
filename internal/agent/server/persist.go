package server

import (
	"os"
	"path/filepath"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// lasting are the folders that ferry takes for granted to outlive a reboot. The link in /etc/nixos is none: the bundle is kept
// without it.
var lasting = []string{"/nix/var/nix", agent.Folder, filepath.Dir(journalFile)}

// emptiedFolders are those of them that a reboot empties, as far as that can be told: they are in memory, or something was deployed and
// the journal of it is gone, as on a file system that is rolled back at each boot.
func emptiedFolders(r machine.Root) []string {
	var found []string
	for _, folder := range lasting {
		lost := r.InMemory(folder)
		if folder == filepath.Dir(journalFile) && r.Exists(filepath.Join(machine.GCRoots, previousSystem)) && !r.Exists(journalFile) && !r.Exists(rotatedJournal) {
			lost = true
		}
		if lost {
			found = append(found, folder)
		}
	}
	return found
}

// noLink says why currentConfiguration cannot be made; "" if it can, as far as that can be told without trying.
func noLink(r machine.Root) string {
	folder := filepath.Dir(currentConfiguration)
	if to, err := os.Readlink(r.Path(folder)); err == nil {
		if _, found := machine.NewFiles(r).Resolve(folder); found == machine.Absent {
			return folder + " is a link to " + to + ", which is not there"
		}
	}
	at := r.Nearest(folder)
	info, err := os.Stat(r.Path(at))
	switch {
	case err == nil && !info.IsDir():
		return folder + " is no folder"
	case r.MountOf(at).ReadOnly:
		return at + " is mounted read-only"
	case r.Immutable(at):
		return at + " has the attribute immutable"
	}
	return ""
}
