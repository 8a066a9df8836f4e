package deploy

import (
	"fmt"
	"slices"
	"time"

	"ferry/internal/agent"
	"ferry/internal/run"
)

// minimumFree is how many bytes a store must have free to begin at all: less is a full disk.
const minimumFree = 32 << 20

// preflight tells from what the agent says whether a deployment of system can work there, before anything is built for it.
func preflight(facts agent.Facts, system string, opts Options) error {
	if facts.Lock != nil {
		return locked(facts.Lock)
	}
	if facts.Nix == "" {
		reason := facts.NixError
		if reason == "" {
			reason = "nix-store does not work there"
		}
		return hint("the target has no working Nix: "+reason, "install Nix there first; on NixOS it is there unless nix.enable = false")
	}
	if !facts.NixOS && !opts.ForceNotNixOS {
		return hint("the target is not a NixOS machine: /etc/NIXOS is missing",
			"check the target's name; if you mean it, use --force-not-nixos")
	}
	if !runsOn(system, facts) {
		return hint(fmt.Sprintf("the node is built for %s, but the target is %s", system, facts.System),
			fmt.Sprintf("set system = %q for this node in the inventory", facts.System))
	}
	if facts.StoreFree > 0 && facts.StoreFree < minimumFree {
		return hint(fmt.Sprintf("the target's disk is full: %s free for /nix/store", Size(uint64(facts.StoreFree))),
			"on the target: sudo nix-collect-garbage --delete-older-than 30d")
	}
	return nil
}

// locked says who is at work on a target. Its clock may be another one than this machine's.
func locked(l *agent.Lock) error {
	since := ""
	if l.Since > 0 {
		since = " since " + time.Unix(l.Since, 0).Format("15:04:05")
	}
	return hint(run.Clean(orElse(l.Who, "someone"))+" is deploying to this target"+since, "wait until that is done, then run this again")
}

// runsOn tells whether a target runs programs of a Nix system: its own, and 32-bit ones on their 64-bit machines.
func runsOn(system string, facts agent.Facts) bool {
	if system == facts.System {
		return true
	}
	also := map[string][]string{
		"x86_64":  {"x86_64-linux", "i686-linux"},
		"aarch64": {"aarch64-linux", "armv7l-linux", "armv6l-linux"},
		"armv7l":  {"armv7l-linux", "armv6l-linux"},
	}[facts.Machine]
	// A target whose own system is another machine's is emulated, and says what it is.
	return slices.Contains(also, facts.System) && slices.Contains(also, system)
}

// fits tells whether n bytes fit into the target's store, where that can be told.
func fits(facts agent.Facts, n uint64) error {
	if facts.StoreFree == 0 || facts.StoreCompresses || n <= uint64(facts.StoreFree) {
		return nil
	}
	return hint(fmt.Sprintf("the target's disk is too full: %s to ship, %s free for /nix/store", Size(n), Size(uint64(facts.StoreFree))),
		"on the target: sudo nix-collect-garbage --delete-older-than 30d")
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Count is a number of things as people read it.
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Size is a number of bytes as people read it.
func Size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB"} {
		value /= 1000
		if value < 999.5 {
			break
		}
	}
	if value < 9.95 {
		return fmt.Sprintf("%.1f %s", value, unit)
	}
	return fmt.Sprintf("%.0f %s", value, unit)
}
