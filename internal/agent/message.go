// Package agent is the protocol between ferry and ferry-agent, the program that does the work on a target, and ferry's side
// of it: getting the agent there, running it under one sudo, and asking it. The agent's own side is package server.
//
// The agent speaks first: a line with [Magic], then frames (see [Wire]). It says who it is and what the target is like in
// [Hello]; then ferry sends requests, one at a time. End of file on its input ends the agent, except that a commit that has
// begun is finished.
package agent

import (
	"ferry/internal/nix"
)

// Magic is the line, without its newline, that the agent starts with. A login shell may print things before it.
const Magic = "ferry-agent/1 ready"

// Hello is what the agent says of itself and of the target. Sizes are in bytes. A field that could not be found out is
// empty or zero.
type Hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version" is:"short"`
	Facts    Facts  `json:"facts"`
	// Program is the agent's file, after all links: the one that was looked at before it was started.
	Program Verbatim `json:"program,omitempty"`
	// Resumed says that this deployment held the lock before, and nobody else since, and that the target was not restarted.
	Resumed bool `json:"resumed,omitempty"`
	// Parked is a path that a lost connection has left half sent, and that the target's Nix still waits for; nil: none.
	Parked *Parked `json:"kept,omitempty"`
}

// Parked is a path that was broken off on its way, see [ShipHeader].
type Parked struct {
	Path    nix.StorePath `json:"path"`
	NarHash string        `json:"nar_hash"`
	NarSize uint64        `json:"nar_size"`
	Offset  uint64        `json:"offset"` // bytes of the NAR that Nix has
}

// Facts is the state of a target.
type Facts struct {
	Host     string `json:"host"`
	Machine  string `json:"machine"`   // uname -m
	System   string `json:"system"`    // as Nix calls it: of the running system, else of nix.conf, else by machine
	NixOS    bool   `json:"nixos"`     // by /etc/NIXOS or os-release
	Nix      string `json:"nix"`       // nix-store --version; empty: no Nix
	NixError string `json:"nix_error"` // why it is not known
	Systemd  int    `json:"systemd"`   // version; 0: PID 1 is not systemd

	Current string `json:"current" is:"path"` // toplevel that runs, /run/current-system
	Booted  string `json:"booted" is:"path"`  // toplevel that was booted, /run/booted-system
	Profile string `json:"profile" is:"path"` // toplevel that /nix/var/nix/profiles/system stands for
	Bundle  string `json:"bundle" is:"path"`  // bundle that was committed last, by its GC root and /etc/nixos/current-configuration, if it is valid
	// Committed is the toplevel of that bundle: the last one whose commit went to its end.
	Committed string `json:"committed" is:"path"`

	Generation        int    `json:"generation,omitempty"`                // number of the system profile; 0: none
	ProfileTime       int64  `json:"profile_time,omitempty"`              // when that was made, seconds since 1970
	CurrentGeneration int    `json:"current_generation,omitempty"`        // number that stands for Current, where that is not Profile; 0: none
	Specialisation    string `json:"specialisation,omitempty" is:"short"` // name of the one of Profile that Current is; "": none
	Version           string `json:"version,omitempty" is:"short"`        // NixOS's version of Current
	// Deployed is what the manifest of Bundle says. Pending is the toplevel of a bundle that was shipped and not committed.
	Deployed Manifest `json:"deployed,omitzero"`
	Pending  string   `json:"pending,omitempty" is:"path"`
	// Last is the newest entry of the journal, LastCommit the newest that committed Bundle; nil: there is none.
	Last       *JournalEntry `json:"last,omitempty"`
	LastCommit *JournalEntry `json:"last_commit,omitempty"`
	// NoLink says why the link /etc/nixos/current-configuration cannot be made there; "": it can. Emptied are the folders of
	// ferry's that a reboot empties.
	NoLink  string   `json:"no_link,omitempty"`
	Emptied []string `json:"emptied,omitempty"`
	// Lacking is how many paths that Bundle needs are not on the disk, or in doubt since a power cut. Only an agent that holds the
	// lock looks.
	Lacking int `json:"lacking,omitempty"`
	// Previous is how the target was before the newest deployment that changed what runs or boots and was no rollback; nil:
	// none is known. Its bundle is the one that what ran then was made of, "" if that is not known.
	Previous *JournalState `json:"previous,omitempty"`
	// InitInterface and Inhibitors are the files init-interface-version and switch-inhibitors of the toplevel that runs. A
	// switch to a system that has others needs a reboot. They are compared.
	InitInterface Verbatim `json:"init_interface,omitempty"`
	Inhibitors    Verbatim `json:"inhibitors,omitempty"`

	StoreFree int64 `json:"store_free"`
	// StoreCompresses says that the store is on a file system that may compress, so that StoreFree says little.
	StoreCompresses bool   `json:"store_compresses"`
	BootFree        int64  `json:"boot_free"`
	BootID          string `json:"boot_id"`
	// BootOnce is the boot loader that can try an entry once: systemd-boot, grub, or "".
	BootOnce string `json:"boot_once,omitempty"`
	Time     int64  `json:"time"` // seconds since 1970
	Lock     *Lock  `json:"lock"` // another deployment is at work; the agent will change nothing
}

// Lock says who holds the target.
type Lock struct {
	Who    string `json:"who" is:"short"`             // user@machine, as that ferry said
	Since  int64  `json:"since"`                      // seconds since 1970
	From   string `json:"from,omitempty" is:"short"`  // the address that it came from
	Bundle string `json:"bundle,omitempty" is:"path"` // what it deploys, once that is known
}

// Method is what a request asks for.
type Method string

// The requests. Those marked "stream" are followed by data frames.
const (
	// MethodMissing asks which of some paths are not valid on the target, and keeps the valid ones from being collected
	// while the agent lives. Stream: zstd of the store paths, one a line. Result: MissingResult.
	MethodMissing Method = "missing"
	// MethodShip brings paths. Stream: see ShipHeader. Progress: Registered. Result: ShipResult.
	MethodShip Method = "ship"
	// MethodActivate runs the toplevel's switch-to-configuration in a unit of its own. Log: what it writes. Result:
	// ActivateResult.
	MethodActivate Method = "activate"
	// MethodCommit makes the bundle what the target boots, and its GC root. Log: what that writes. Result: CommitResult.
	MethodCommit Method = "commit"
	// MethodBootOnce reboots into the toplevel, with the old system still the default, or removes what is left of that. Log:
	// what that writes. Result: BootOnceResult.
	MethodBootOnce Method = "boot-once"
	// MethodReboot reboots the target.
	MethodReboot Method = "reboot"
	// MethodBooted waits until the target has finished booting. Result: BootedResult.
	MethodBooted Method = "booted"
	// MethodSwitch begins a guarded switch, or finds it again, and follows it until it waits to be confirmed, or has ended.
	// Log: what it writes. Progress: its phases. Result: SwitchResult.
	MethodSwitch Method = "switch"
	// MethodFinish tells a guarded switch what ferry has to say, if anything, and follows it to its end. Log, Progress and
	// Result as for MethodSwitch.
	MethodFinish Method = "finish"
	// MethodInspect compares what runs with Toplevel and changes nothing. Result: Risks. With Ahead the toplevel need not be
	// there, and the risks are whole only if nothing is Wanted. Stream, with Ahead: zstd of files that were wanted, as JSON.
	MethodInspect Method = "inspect"
)

// Request is one thing to do.
type Request struct {
	ID     int    `json:"id"`
	Method Method `json:"method"`

	// Substitute lets MethodMissing fetch missing paths from the target's own caches first.
	Substitute bool `json:"substitute,omitempty"`
	// Bundle and Toplevel are what MethodActivate and MethodCommit are about; Toplevel alone, MethodInspect.
	Bundle   nix.StorePath `json:"bundle,omitempty"`
	Toplevel nix.StorePath `json:"toplevel,omitempty"`
	// Action is what switch-to-configuration is to do, for MethodActivate: test or dry-activate. For MethodCommit "boot", or
	// "root" to move only the GC root. For MethodBootOnce "try" or "forget". For MethodInspect what is to
	// be done with it.
	Action string `json:"action,omitempty"`
	// Root says that MethodShip's stream ends with the bundle, which is kept by a GC root until it is committed.
	Root nix.StorePath `json:"root,omitempty"`
	// Channels is the token that MethodShip's channels begin with; empty: it has none. The agent tells at once that it has begun.
	Channels string `json:"lanes,omitempty"`
	// Job names the deployment's work of MethodActivate and MethodCommit on the target: asked for again after a lost
	// connection, the work is not begun again but followed, from Offset bytes of its log on. 8 to 64 of a-z and 0-9.
	Job    string `json:"job,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	// ForceNotNixOS lets MethodActivate and MethodCommit work on a machine that is no NixOS, and makes /etc/NIXOS there.
	ForceNotNixOS bool `json:"force_not_nixos,omitempty"`
	// Within is a time in seconds: in which, from its boot on, a system that MethodBootOnce tries has to be committed, or in
	// which MethodBooted waits.
	Within int `json:"within,omitempty"`

	// ActivationLimit is how long switch-to-configuration may take in MethodActivate, MethodCommit and MethodBootOnce, in seconds,
	// before it is ended and what it was to change is undone; 0: as the target likes.
	ActivationLimit int `json:"activation_limit,omitempty"`

	// Switch says how MethodSwitch is to be done; nil: find the one named by Job, or the last one if that is empty, and begin
	// none.
	Switch *GuardOptions `json:"switch,omitempty"`
	// Record is what MethodSwitch and MethodCommit write into the target's journal.
	Record Record `json:"record,omitzero"`
	// Token is what MethodSwitch and MethodFinish let the switch be confirmed by from now on.
	Token *Token `json:"token,omitempty"`
	// Verdict is what MethodFinish tells the switch.
	Verdict Verdict `json:"verdict,omitempty"`
	// Reason says why the Verdict is to roll back.
	Reason string `json:"reason,omitempty"`
	// Check is what MethodCheck runs.
	Check *CheckRequest `json:"check,omitempty"`
	// Limit is how many entries MethodHistory asks for.
	Limit int `json:"limit,omitempty"`
	// Ahead says that MethodInspect is about a toplevel that has not been shipped, and Elevate which program would make root of
	// the login user, if the agent runs without it.
	Ahead   bool   `json:"ahead,omitempty"`
	Elevate string `json:"elevate,omitempty"`
	// Argv is the command that MethodExec runs.
	Argv []string `json:"argv,omitempty"`
	// Contents lets MethodOnDisk read the paths.
	Contents bool `json:"contents,omitempty"`
}

// Verdict is what ferry decides about a system that runs on the target and waits.
type Verdict string

// The verdicts.
const (
	VerdictConfirm Verdict = "confirm" // the target can be reached, though the token could not be written
	VerdictKeep    Verdict = "keep"    // the checks went well
	VerdictBack    Verdict = "back"    // roll back now
	VerdictLeave   Verdict = "leave"   // a person's: a target that could not roll back is left as it is
)

// Response ends a request.
type Response struct {
	ID    int            `json:"id"`
	Error *ResponseError `json:"error,omitempty"`

	Missing  []int           `json:"missing,omitempty"` // MethodMissing: indexes into the paths that were sent
	Ship     *ShipResult     `json:"ship,omitempty"`    // MethodShip, MethodRestore
	Activate *ActivateResult `json:"activate,omitempty"`
	Commit   *CommitResult   `json:"commit,omitempty"`
	BootOnce *BootOnceResult `json:"boot_once,omitempty"`
	Booted   *BootedResult   `json:"booted,omitempty"`
	Switch   *SwitchResult   `json:"switch,omitempty"` // MethodSwitch, MethodFinish

	Generations *GenerationsResult `json:"generations,omitempty"`
	Risks       []Risk             `json:"risks,omitempty"`  // MethodInspect
	Wanted      []Verbatim         `json:"wanted,omitempty"` // MethodInspect: paths below store paths
	Unsure      []string           `json:"unsure,omitempty"` // MethodInspect: what could not be found out
	Check       *CheckResult       `json:"check,omitempty"`
	Look        *LookResult        `json:"look,omitempty"`
	History     *HistoryResult     `json:"history,omitempty"`
	Exec        *ExecResult        `json:"exec,omitempty"`
	Closure     *ClosureResult     `json:"closure,omitempty"`
	Units       *UnitsResult       `json:"units,omitempty"`
	Evaluate    *EvaluateResult    `json:"evaluate,omitempty"`
	Derivations *Derivations       `json:"derivations,omitempty"`
	OnDisk      *OnDiskResult      `json:"on_disk,omitempty"`
}

// ErrorKind sorts what went wrong on the target.
type ErrorKind string

// The kinds that ferry has something to say about.
const (
	KindDiskFull ErrorKind = "disk full"
	KindLocked   ErrorKind = "locked"
	KindNoNix    ErrorKind = "no nix"
	KindNotNixOS ErrorKind = "not nixos"
	KindInvalid  ErrorKind = "invalid path"
	KindUnsafe   ErrorKind = "unsafe"
	KindNone     ErrorKind = "none there" // no switch to attach to
	KindBase     ErrorKind = "base"       // MethodShip: the path could not be rebuilt from its bases; what came before is there
	KindChannel  ErrorKind = "lane"       // MethodShip: a channel did not bring what it should; what came before is there
	KindOther    ErrorKind = ""
)

// ResponseError is a request that failed on the target.
type ResponseError struct {
	Kind    ErrorKind `json:"kind"`
	Text    string    `json:"text"`    // one line, cleaned
	Command string    `json:"command"` // the command that failed on the target, if one did
	Stderr  []string  `json:"stderr"`  // its last lines, cleaned
	// Path is the one that KindBase is about.
	Path nix.StorePath `json:"path,omitempty"`
	// Parked is a path that KindChannel has left half sent, as [Hello.Parked].
	Parked *Parked `json:"kept,omitempty"`
}

func (e *ResponseError) Error() string {
	if e.Command != "" {
		return e.Command + ": " + e.Text
	}
	return e.Text
}

// Hints says what the user can do about it.
func (e *ResponseError) Hints() []string {
	switch e.Kind {
	case KindInvalid:
		return []string{"run the same command again: what is missing there is shipped again"}
	case KindLocked:
		return []string{"wait until that is done, then run this again"}
	case KindNotNixOS:
		return []string{"check the target's name; if you mean it, use --force-not-nixos"}
	}
	return nil
}

// Output is what the command wrote last.
func (e *ResponseError) Output() []string { return e.Stderr }

// Progress tells how far a request is.
type Progress struct {
	Registered int    `json:"registered,omitempty"` // MethodShip: paths that the target's Nix has verified and registered
	Received   uint64 `json:"received,omitempty"`   // MethodShip: bytes of the stream that have been read
	Begun      bool   `json:"begun,omitempty"`      // MethodShip, with channels: nothing but the request has been read
	Phase      Phase  `json:"phase,omitempty"`      // MethodSwitch, MethodFinish: what has begun
}

// ShipResult is what MethodShip did.
type ShipResult struct {
	Registered int   `json:"registered"` // paths
	Peak       int64 `json:"peak"`       // the agent's largest resident size, bytes
}

// ActivateResult is how switch-to-configuration ended.
type ActivateResult struct {
	// Status is its exit status, or -1 if it is not known: it was killed, or the machine forgot.
	Status int `json:"status"`
	// Error says why the status is not known.
	Error string `json:"error,omitempty"`
	// Refused says why switch-to-configuration has refused before it changed anything, if that is known.
	Refused string `json:"refused,omitempty"`
	// Current is the toplevel that runs now.
	Current string `json:"current" is:"path"`
	// Log is where the whole log is on the target.
	Log string `json:"log"`
	// Failed names the units that are in the failed state now and were not before.
	Failed []string `json:"failed"`
}

// CommitResult is the target after a commit.
type CommitResult struct {
	Generation int    `json:"generation"` // number of the system profile
	Status     int    `json:"status"`     // of switch-to-configuration boot; -1: see Error
	Error      string `json:"error"`      // what else failed
	// Unclean says that after a failure what was there before could not be put back, or that it is not known.
	Unclean bool   `json:"unclean,omitempty"`
	Refused string `json:"refused,omitempty"` // as of ActivateResult
	Log     string `json:"log"`
}

// ShipHeader comes before each path's NAR in MethodShip's stream. The stream is one zstd frame sequence with a window of at
// most [ShipWindow]; in it, for each path, references first: four bytes of header length (big endian), the header as JSON,
// then, if there are no Bases, exactly NarSize bytes of NAR; else the NAR as a difference from the Bases, in the format of package
// delta. A length of zero ends it.
type ShipHeader struct {
	Path       nix.StorePath   `json:"path"`
	Deriver    nix.StorePath   `json:"deriver,omitempty"`
	NarHash    string          `json:"nar_hash"`
	NarSize    uint64          `json:"nar_size"`
	References []nix.StorePath `json:"references,omitempty"`
	Signatures []string        `json:"signatures,omitempty"`
	CA         string          `json:"ca,omitempty"`
	// Bases are paths that are on the target already, and that the NAR is made of in part.
	Bases []nix.StorePath `json:"bases,omitempty"`
	// Offset, of the first path of a stream, goes on with the one of Hello.Parked: the NAR that follows begins there. A difference
	// begins at Start, at most Offset, and what it makes before Offset is left out.
	Offset uint64 `json:"offset,omitempty"`
	Start  uint64 `json:"start,omitempty"`
}

// MaxShipHeader is the longest ShipHeader in bytes.
const MaxShipHeader = 16 << 20

// ShipWindow is the largest zstd window in bytes that the agent accepts: its memory does not grow with a path's size.
const ShipWindow = 8 << 20
