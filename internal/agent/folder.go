package agent

import (
	"fmt"
	"strings"

	"ferry/internal/run"
)

// FolderError says that the agent cannot be kept on a target, because of the folder that it would be in.
type FolderError struct {
	Folder string // the one that is at fault: the agent's own, or one above it
	Owner  string // whose it is, if it is not root's alone
	Mode   string // its permissions, in octal
	NoExec bool   // its file system lets no program run
}

// newFolderError reads what the bootstrap says of a folder: OWNER:MODE:NAME:FOLDER.
func newFolderError(what string) *FolderError {
	f := strings.SplitN(run.Clean(what), ":", 4)
	if len(f) < 4 {
		return &FolderError{Folder: run.Clean(what), Owner: "unknown"}
	}
	e := &FolderError{Folder: f[3], Owner: f[2], Mode: f[1]}
	if e.Owner == "" || e.Owner == "UNKNOWN" {
		e.Owner = f[0]
	}
	return e
}

func (e *FolderError) Error() string {
	switch {
	case e.NoExec:
		return fmt.Sprintf("the agent cannot run on the target: the file system of %s is mounted noexec", e.Folder)
	case e.Owner == "root":
		return fmt.Sprintf("the agent would not be safe on the target: others than root may write to %s (mode %s)", e.Folder, e.Mode)
	case e.Owner == "unknown":
		return fmt.Sprintf("whose folder %s is on the target cannot be found out", e.Folder)
	}
	return fmt.Sprintf("the agent would not be safe on the target: %s belongs to %s", e.Folder, e.Owner)
}

// Hints says what the user can do about it.
func (e *FolderError) Hints() []string {
	folder := run.Quote(e.Folder)
	switch {
	case e.NoExec:
		return []string{fmt.Sprintf("let programs run there: fileSystems.%q = { device = %q; options = [ \"bind\" \"exec\" ]; }; now: sudo mount -o bind,exec %s %s",
			Folder, Folder, Folder, Folder)}
	case e.Owner == "unknown":
		return nil
	case e.Owner == "root":
		return []string{"on the target: sudo chmod go-w " + folder}
	case e.Folder == Folder || strings.HasSuffix(e.Folder, "/private/ferry"):
		return []string{fmt.Sprintf("a service with StateDirectory=ferry has it: give that another folder, then on the target: sudo mv %s %s.old", Folder, Folder)}
	}
	return []string{"on the target: sudo chown root " + folder}
}
