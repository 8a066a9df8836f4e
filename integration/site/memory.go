package site

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Peaks raises highest to the largest resident sizes, in KiB, that the agent and nix-store processes of a pid namespace have had.
func Peaks(space string, highest map[string]int) {
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		// A process may end between any two of these.
		name, err := os.ReadFile(folder + "/comm")
		if err != nil {
			continue
		}
		program := "nix-store"
		if strings.HasPrefix(string(name), "agent-") {
			program = "agent"
		} else if strings.TrimSpace(string(name)) != program {
			continue
		}
		if where, err := os.Readlink(folder + "/ns/pid"); err != nil || where != space {
			continue
		}
		status, err := os.ReadFile(folder + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			var kib int
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
				highest[program] = max(highest[program], kib)
			}
		}
	}
}
