package agent

import (
	"context"
)

// The requests of who only looks. They need neither the lock nor root.
const (
	// MethodLook asks for what [Facts] do not say of a target's state. Result: LookResult.
	MethodLook Method = "look"
	// MethodHistory asks for the newest Limit entries of the journal. Result: HistoryResult.
	MethodHistory Method = "history"
)

// LookResult is how a target is besides its [Facts].
type LookResult struct {
	// Failed names the units that are in the failed state, at most MaxFailed of them. UnitsError says why they are not known.
	Failed     []string `json:"failed" is:"short"`
	UnitsError string   `json:"units_error,omitempty"`
	// Lock is the deployment that is at work; nil: none is. Who only looks may not be told all of it.
	Lock *Lock `json:"lock,omitempty"`
	// Armed is the rollback that the target would do by itself; nil: none.
	Armed *Armed `json:"armed,omitempty"`
	// Reboot names the files in which what runs differs from what was booted, so that only a reboot brings them: kernel, …
	Reboot []string `json:"reboot,omitempty" is:"short"`
	// NixpkgsRevision is the commit of the nixpkgs that Facts.Bundle was built from, where that tree says it or a pin of that
	// tree in the bundle's source. NixpkgsDate is when the commit was made, in seconds since 1970; 0: not known.
	NixpkgsRevision string `json:"nixpkgs_revision,omitempty" is:"revision"`
	NixpkgsDate     int64  `json:"nixpkgs_date,omitempty"`
	// BootSize is what the boot loader has to put into /boot for a system like the one that runs, in bytes; 0: nothing, because
	// /boot is on the store's file system, or it is not known.
	BootSize int64 `json:"boot_size,omitempty"`
	// BootFiles are these files of the system that runs: a new system with the same ones needs no more room.
	BootFiles []string `json:"boot_files,omitempty" is:"short"`
	// Roots says what is wrong with the links that keep systems from being collected.
	Roots []Trouble `json:"roots,omitempty"`
}

// Trouble is something that is wrong on a target, and what a person can do there about it.
type Trouble struct {
	Text string `json:"text"`
	Fix  string `json:"fix"`
	// Blocks says that a deployment would fail.
	Blocks bool `json:"blocks,omitempty"`
}

// MaxDate is the last second, of those since 1970, that has a year of four digits.
const MaxDate = 253402300799

// MaxFailed is how many failed units are told at most.
const MaxFailed = 100

// Armed is a rollback that is armed on a target.
type Armed struct {
	Toplevel string `json:"toplevel" is:"path"`       // what is tried
	Reboot   bool   `json:"reboot"`                   // by a reboot; else by a switch
	Who      string `json:"who,omitempty" is:"short"` // who tries it
	Phase    Phase  `json:"phase" is:"short"`         // how far the switch is
	Left     int    `json:"left,omitempty"`           // seconds until it rolls back, in the phases Waiting and Confirmed
}

// HistoryResult is what a target remembers of its deployments.
type HistoryResult struct {
	Entries []JournalEntry `json:"entries"` // the newest last
	Older   bool           `json:"older"`   // there are older ones
}

// MaxHistory is how many deployments are told at most; fewer, if more do not fit into an answer.
const MaxHistory = 2000

// Look asks for how the target is besides what it said in Hello.
func (s *Session) Look(ctx context.Context) (LookResult, error) {
	response, err := s.request(ctx, Request{Method: MethodLook}, nil, nil, nil)
	if err != nil || response.Look == nil {
		return LookResult{}, orMissing(err)
	}
	return *response.Look, nil
}

// History asks for the newest entries of the target's journal, at most limit of them.
func (s *Session) History(ctx context.Context, limit int) (HistoryResult, error) {
	response, err := s.request(ctx, Request{Method: MethodHistory, Limit: limit}, nil, nil, nil)
	if err != nil || response.History == nil {
		return HistoryResult{}, orMissing(err)
	}
	return *response.History, nil
}

// RebootFiles are the files of a toplevel that only a boot puts to use; NixOS's own automatic upgrade reboots for the same.
var RebootFiles = []string{"kernel", "kernel-modules", "initrd"}

// BootFiles are the files of a toplevel that a boot loader copies into /boot.
var BootFiles = []string{"kernel", "initrd"}
