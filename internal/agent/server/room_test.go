package server

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestOnlyAFullRunGrows locks when the way back makes room for itself, and how much.
func TestOnlyAFullRunGrows(t *testing.T) {
	t.Parallel()
	const mebi = 1 << 20
	for name, c := range map[string]struct {
		size, free, want uint64 // MiB
	}{
		"full":                {100, 0, 132},
		"too full for units":  {100, 15, 132},
		"room enough":         {100, 32, 0},
		"small, and full":     {4, 0, 36},
		"one without a limit": {0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := unix.Statfs_t{Bsize: 4096, Blocks: c.size * mebi / 4096, Bavail: c.free * mebi / 4096}
			if got := grown(fs); got != c.want*mebi {
				t.Errorf("it grows to %d, want %d", got, c.want*mebi)
			}
		})
	}
}
