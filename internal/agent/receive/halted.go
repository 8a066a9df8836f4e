package receive

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// haltedLimit is how long a nix-store may be stopped. Whoever has stopped it may have done so for a moment only.
const haltedLimit = time.Minute

// haltedLooks is how often it is looked at in that time.
const haltedLooks = 12

// errStoreStopped is a nix-store that was told to stop, and not to go on. The agent itself is at work then, and says so, as long
// as it waits: ferry would wait with it for ever.
var errStoreStopped = errors.New("nix-store was stopped (SIGSTOP) and not told to go on, so it was ended")

// watch ends the process when it is stopped for longer than it may be. The caller holds the lock, or nobody else has s yet.
func (s *store) watch() {
	process, pause := s.process, s.halted/haltedLooks
	stat := statOf(process)
	if stat == "" || pause <= 0 {
		return
	}
	looks := 0
	var look func()
	look = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.process != process {
			return
		}
		if looks++; !isStopped(stat) {
			looks = 0
		}
		if looks > haltedLooks {
			s.stopped = true
			process.Kill()
			return
		}
		time.AfterFunc(pause, look)
	}
	time.AfterFunc(pause, look)
}

// statOf is where the kernel says how a process is; "" if that is not known.
func statOf(p storeProcess) string {
	switch p := p.(type) {
	case *run.Process:
		return fmt.Sprintf("/proc/%d/stat", p.Pid())
	case *adoptedProcess:
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", machine.FD(p.process)))
		if err != nil {
			return ""
		}
		for line := range strings.Lines(string(text)) {
			if pid, found := strings.CutPrefix(line, "Pid:"); found {
				return "/proc/" + strings.TrimSpace(pid) + "/stat"
			}
		}
	}
	return ""
}

// isStopped tells whether a process is, by that file.
func isStopped(stat string) bool {
	text, err := os.ReadFile(stat)
	if err != nil {
		return false
	}
	// What is in parentheses is its name.
	_, after, found := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), ") ")
	return found && strings.HasPrefix(after, "T")
}
