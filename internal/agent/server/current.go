package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"
)

const (
	// currentRoot is the GC root of the bundle that was committed last, a link straight to it: /nix outlives a reboot
	// wherever a NixOS does, and can be written wherever something is deployed.
	currentRoot = machine.GCRoots + "/" + currentName
	currentName = "current-configuration"
	// currentConfiguration is the same for people, and for the bundle's own script of before: where it cannot be made, as in an
	// /etc that nobody can write to, it is missing.
	currentConfiguration = "/etc/nixos/current-configuration"
	// previousBundle and previousSystem are the roots of what was there before the last deployment: what `ferry rollback`
	// returns to where a reboot has emptied the journal.
	previousBundle = "previous"
	previousSystem = "previous-system"
)

// currentBundle is the bundle that was committed last, or "". The two links say the same, unless somebody has removed one, or
// a script of before has moved the one and an /etc that cannot be written has held up the other: then the one counts whose
// system is what boots, and if both are that, the younger one.
func currentBundle(r machine.Root) string {
	kept, linked := r.StorePath(currentRoot), r.StorePath(currentConfiguration)
	if kept == linked || linked == "" {
		return kept
	}
	if kept == "" {
		return linked
	}
	boots := func(bundle string) bool { return r.StorePath(bundle+"/profile") == r.StorePath(systemProfile) }
	younger := r.Modified(currentConfiguration) > r.Modified(currentRoot)
	if boots(linked) && (younger || !boots(kept)) || younger && !boots(kept) {
		return linked
	}
	return kept
}

// currentPlace is where the bundle that was committed last is found by its name, as people are told it; "": there is none.
func currentPlace(r machine.Root) string {
	bundle := currentBundle(r)
	for _, link := range []string{currentConfiguration, currentRoot} {
		if bundle != "" && r.StorePath(link) == bundle {
			return link
		}
	}
	return bundle
}

// keepCurrent makes the bundle the one that was committed last. Without a bundle, as when somebody returns to a generation
// that has none any more, there is none: no configuration is better than another one's. That the link in /etc/nixos cannot be
// made is told in log.
func keepCurrent(r machine.Root, bundle nix.StorePath, log io.Writer) error {
	var err error
	if bundle == "" {
		err = r.Release(currentName)
	} else {
		err = r.Keep(currentName, string(bundle))
	}
	if err != nil {
		return err
	}
	if err := linkCurrent(r, bundle); err != nil {
		_, _ = fmt.Fprintf(log, "ferry: the link %s could not be set, so only %s keeps the bundle: %s\n", currentConfiguration, currentRoot, run.Clean(err.Error()))
	}
	return nil
}

// linkCurrent sets the link in /etc/nixos.
func linkCurrent(r machine.Root, bundle nix.StorePath) error {
	link := r.Path(currentConfiguration)
	folder := filepath.Dir(link)
	if bundle == "" {
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return r.Disk.SyncFolder(folder)
	}
	if to, err := os.Readlink(link); err == nil && to == string(bundle) {
		return nil
	}
	if err := r.Disk.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return r.Disk.Link(string(bundle), link)
}

// keepPrevious keeps what was there before a commit. That it cannot be kept is no reason to fail.
func keepPrevious(r machine.Root, before agent.JournalState, job Job) {
	if bundle := madeOf(r, before); bundle != "" && bundle != string(job.Bundle) {
		_ = r.Keep(previousBundle, bundle)
	}
	// As in the journal: who has rolled back rolls back to the same once more.
	if before.Current != "" && before.Current != string(job.Toplevel) && job.Record.Action != agent.ActionRollback {
		_ = r.Keep(previousSystem, before.Current)
	}
}

// previousState is what `ferry rollback` returns to, as far as the GC roots say it; nil: they do not.
func previousState(r machine.Root) *agent.JournalState {
	system := r.StorePath(filepath.Join(machine.GCRoots, previousSystem))
	if system == "" {
		return nil
	}
	before := &agent.JournalState{Current: system}
	if bundle := r.StorePath(filepath.Join(machine.GCRoots, previousBundle)); bundle != "" && r.StorePath(bundle+"/profile") == system {
		before.Bundle = bundle
	}
	return before
}

// profileToDisk brings the system profile to the disk, which nix-env has set, and what else a boot loader's menu is made of.
func profileToDisk(r machine.Root) error {
	if err := r.Disk.SyncFolder(r.Path(profiles)); err != nil {
		return fmt.Errorf("bring the system profile to the disk: %w", err)
	}
	return nil
}

// installBoot lets a system write the boot loader, with itself as the default, and brings that to the disk.
func installBoot(ctx context.Context, r machine.Root, job Job, log *os.File) jobStatus {
	status := switchTo(ctx, r, job, "boot", log)
	if status.failed() {
		return status
	}
	if err := toDisk(ctx, r); err != nil {
		return jobStatus{Status: -1, Error: run.Clean(err.Error())}
	}
	return status
}
