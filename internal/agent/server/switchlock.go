package server

import (
	"context"
	"time"

	"ferry/internal/agent/machine"
)

// switchLock is what NixOS's own switch-to-configuration holds while it works. Older ones have none. It makes the file so that
// everybody can open it, and hold its lock: today's then refuses (exit status 11), and earlier ones wait for ever.
const switchLock = "/run/nixos/switch-to-configuration.lock"

// turnFile is held by who replaces a lock's file.
const turnFile = machine.RunFolder + "/turn"

// stcLockWait is how long somebody else's switch is waited for.
const stcLockWait = 10 * time.Second

// awaitSwitchLock waits until nobody else of root's switches, and says who still does when the time is up. After that only root
// can open the lock's file: it is replaced if it was one that others could have open. Who holds it without being root is not
// waited for.
func awaitSwitchLock(ctx context.Context, r machine.Root, wait time.Duration) string {
	name := r.Path(switchLock)
	for start := time.Now(); ; {
		private := machine.IsPrivate(name)
		holder := machine.UsedByRoot(name, !private)
		if holder == "" {
			if private && machine.IsFree(name) {
				return ""
			}
			if err := machine.ReplaceLock(name, r.Path(turnFile)); err != nil {
				// switch-to-configuration will say what is wrong with its lock.
				return ""
			}
			// Somebody may have opened the one that was there a moment ago.
			if holder = machine.UsedByRoot(name, false); holder == "" {
				return ""
			}
		}
		if time.Since(start) > wait || ctx.Err() != nil {
			return holder
		}
		time.Sleep(100 * time.Millisecond)
	}
}
