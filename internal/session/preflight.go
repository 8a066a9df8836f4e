package session

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"ferry/internal/agent"
	"ferry/internal/prose"
	"ferry/internal/run"
)

// MinimumFree is how many bytes a store must have free to begin at all: less is a full disk.
const MinimumFree = 32 << 20

// Condition is something that has to be so on a target before anything is deployed there.
type Condition struct {
	About string // in a word
	Err   error  // why it is not so; nil: it is
}

// preflight tells from what the agent says whether a deployment of system can work there, before anything is built for it.
func preflight(facts agent.Facts, system string, forceNotNixOS bool) error {
	for _, c := range Conditions(facts, system, forceNotNixOS) {
		if c.Err != nil {
			return c.Err
		}
	}
	return nil
}

// Conditions are all that preflight looks at, what matters most first.
func Conditions(facts agent.Facts, system string, forceNotNixOS bool) []Condition {
	free := Condition{About: "lock"}
	if facts.Lock != nil {
		free.Err = Locked(facts.Lock)
	}
	nix := Condition{About: "nix"}
	if facts.Nix == "" {
		nix.Err = Hint("the target has no working Nix: "+cmp.Or(facts.NixError, "nix-store does not work there"),
			"install Nix there first; on NixOS it is there unless nix.enable = false")
	}
	nixos := Condition{About: "nixos"}
	if !facts.NixOS && !forceNotNixOS {
		nixos.Err = Hint("the target is not a NixOS machine: /etc/NIXOS is missing",
			"check the target's name; if you mean it, use --force-not-nixos")
	}
	platform := Condition{About: "system"}
	if system != "" && !runsOn(system, facts) {
		platform.Err = wrongPlatform(system, facts, fmt.Sprintf("set system = %q for this node in the inventory", facts.System))
	}
	store := Condition{About: "store"}
	if facts.StoreFree > 0 && facts.StoreFree < MinimumFree {
		store.Err = Hint(fmt.Sprintf("the target's disk is full: %s free for /nix/store", prose.Size(uint64(facts.StoreFree))), makeRoom)
	}
	return []Condition{free, nix, nixos, platform, store}
}

// wrongPlatform is the error for a target that does not run what a node is built for.
func wrongPlatform(system string, facts agent.Facts, advice string) error {
	return Hint(fmt.Sprintf("the node is built for %s, but the target is %s", system, facts.System), advice)
}

// makeRoom is what to do about a full disk.
const makeRoom = "on the target: sudo nix-collect-garbage --delete-older-than 30d"

// Locked says who is at work on a target, from where, since when and with what. Its clock may be another one than this
// machine's.
func Locked(l *agent.Lock) error {
	text := run.Clean(cmp.Or(l.Who, "someone"))
	if l.From != "" {
		text += " (from " + run.Clean(l.From) + ")"
	}
	text += " is deploying to this target"
	if l.Since > 0 {
		text += " since " + time.Unix(l.Since, 0).Format("15:04:05")
	}
	if l.Bundle != "" {
		text += ": " + run.Clean(l.Bundle)
	}
	return Hint(text, "wait until that is done, then run this again")
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

// Forgets says what a target does not keep as an ordinary NixOS does: of these a person should know, and need not do anything.
func Forgets(facts agent.Facts) []Condition {
	var found []Condition
	if facts.NoLink != "" {
		found = append(found, Condition{"etc", Hint("the link /etc/nixos/current-configuration cannot be made: "+facts.NoLink,
			"nothing has to be done: "+currentRoot+" keeps the bundle, and names it")})
	}
	lost := map[string]string{
		"/nix/var/nix":   "what is deployed",
		"/var/lib/ferry": "the rollback of a --reboot that is tried",
		"/var/log/ferry": "the journal of deployments",
	}
	var folders, things []string
	for _, folder := range facts.Emptied {
		if thing, known := lost[folder]; known {
			folders, things = append(folders, folder), append(things, thing)
		}
	}
	if len(folders) > 0 {
		found = append(found, Condition{"persistence", Hint(fmt.Sprintf("a reboot empties %s: %s is lost then", prose.And(folders), prose.And(things)),
			"to keep it, make "+prose.And(folders)+" outlive a reboot, as with environment.persistence or a file system of its own")})
	}
	return found
}

// currentRoot is what keeps the bundle of a target from being collected.
const currentRoot = "/nix/var/nix/gcroots/ferry/current-configuration"

// Fits tells whether n bytes fit into the target's store, where that can be told.
func Fits(facts agent.Facts, n uint64) error {
	if facts.StoreFree == 0 || facts.StoreCompresses || n <= uint64(facts.StoreFree) {
		return nil
	}
	return Hint(fmt.Sprintf("the target's disk is too full: %s to ship, %s free for /nix/store", prose.Size(n), prose.Size(uint64(facts.StoreFree))), makeRoom)
}

// oldestSystemd is the version that a rollback is armed with: that of NixOS 17.03.
const oldestSystemd = 232

// RollsBack tells why a target could not roll back by itself from a switch; nil if it can.
func RollsBack(facts agent.Facts) error {
	reason := ""
	switch {
	case facts.Systemd == 0:
		reason = "PID 1 is not systemd there, or its version is not known, so no timer can be armed"
	case facts.Systemd < oldestSystemd:
		reason = fmt.Sprintf("its systemd %d is older than %d, and a timer may not work", facts.Systemd, oldestSystemd)
	case facts.Current == "":
		reason = "it has no /run/current-system that could be returned to"
	}
	if reason == "" {
		return nil
	}
	return Hint("the target could not roll back by itself: "+reason, UnsafeHint)
}

// UnsafeHint is what to do about a target that cannot roll back by itself.
const UnsafeHint = "use --unsafe to continue without a rollback; a person at its console may then be needed"
