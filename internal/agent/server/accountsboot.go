package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"ferry/internal/agent"
	"ferry/internal/agent/lockout"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
	"ferry/internal/userdb"
)

// The accounts that a boot of the old system puts back: of a switch that the machine's power is cut in, of a test, which ends with
// the next boot, and of a system that is tried by a reboot. NixOS's own activation in the boot removes whom the new system has
// declared and the old one does not, so a service puts them back after it, before anybody can log in. All of it is root's alone.
const (
	accountsFolder = agent.Folder + "/accounts"
	// accountsBoot says what is kept: bootAccounts.
	accountsBoot = accountsFolder + "/boot.json"
	// accountsBefore is what the accounts were before the new system was activated, and accountsAfter what they were after it.
	accountsBefore = accountsFolder + "/before"
	accountsAfter  = accountsFolder + "/after"
	// accountsAgent is the program of the service; see trialAgent.
	accountsAgent = accountsFolder + "/agent"
	accountsUnit  = "ferry-accounts-back.service"
)

// bootAccounts is what a boot does with accounts.
type bootAccounts struct {
	Old string `json:"old"` // the toplevel whose boot puts them back
	New string `json:"new"` // the toplevel that changes them
	// BootID is the boot in which they were kept: nothing is put back in that one.
	BootID string `json:"boot_id"`
	// Owner is the folder's name of the switch that has kept them, or ownerTrial.
	Owner string `json:"owner"`
}

// ownerTrial is the owner of the accounts of a system that is tried by a reboot.
const ownerTrial = "reboot"

const accountsUnitText = `[Unit]
Description=ferry: put back the users of the system that is booted
DefaultDependencies=no
ConditionPathExists=` + accountsAgent + `
RequiresMountsFor=` + accountsFolder + `
After=local-fs.target systemd-remount-fs.service userborn.service systemd-sysusers.service
Before=sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=` + accountsAgent + ` accounts-back
TimeoutStartSec=90
`

// keepAccountsForBoot keeps the accounts for a boot of the system old, of which new may change them. What is kept for the same
// system already, as by a test that is followed by another one, is what that boot needs: it stays, with what others have
// changed since.
func keepAccountsForBoot(r machine.Root, was userdb.State, b bootAccounts) error {
	if b.Old == "" || b.Old == b.New || lockout.Declaration(r, b.Old) == lockout.Declaration(r, b.New) {
		return nil
	}
	if kept, err := readBootAccounts(r); err == nil && kept.Old == b.Old && kept.BootID == b.BootID && b.Owner != ownerTrial {
		return keepAccountsOn(r)
	}
	if !r.Exists(machine.SystemdRuns) {
		return errors.New("PID 1 is not systemd")
	}
	for _, folder := range []string{controlFolder, accountsFolder} {
		if on := r.MountOf(folder); on.Kind == "tmpfs" || on.Kind == "ramfs" {
			return fmt.Errorf("%s does not outlive a reboot there", folder)
		}
	}
	b.BootID = r.BootID()
	if err := writeAccountsForBoot(r, was, b); err != nil {
		return errors.Join(err, dropAccountsForBoot(r))
	}
	return nil
}

// keepAccountsOn makes what is kept for a boot what that would put back now.
func keepAccountsOn(r machine.Root) error {
	was, err := userdb.Load(r.Path(accountsBefore))
	if err != nil {
		return err
	}
	is, err := userdb.Read(r.Dir)
	if err != nil {
		return err
	}
	if err := userdb.Undone(was, loadAccounts(r, accountsAfter), is).Keep(r.Path(accountsBefore)); err != nil {
		return err
	}
	return machine.RemoveLink(r.Path(accountsAfter))
}

func writeAccountsForBoot(r machine.Root, was userdb.State, b bootAccounts) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	folder := r.Path(accountsFolder)
	if err := r.Disk.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		return err
	}
	if err := os.Remove(r.Path(accountsAfter)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := was.Keep(r.Path(accountsBefore)); err != nil {
		return err
	}
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := r.Disk.WriteFile(r.Path(accountsBoot), text, 0o600); err != nil {
		return err
	}
	if err := copyProgram(program, r.Path(accountsAgent)); err != nil {
		return err
	}
	if err := r.Disk.SyncFolder(folder); err != nil {
		return err
	}
	wants := r.Path(filepath.Join(controlFolder, rebootTimerWants))
	if err := r.Disk.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := r.Disk.WriteFile(r.Path(filepath.Join(controlFolder, accountsUnit)), []byte(accountsUnitText), 0o644); err != nil {
		return err
	}
	return r.Disk.Link("../"+accountsUnit, filepath.Join(wants, accountsUnit))
}

// readBootAccounts reads what is kept; [os.ErrNotExist]: nothing is.
func readBootAccounts(r machine.Root) (b bootAccounts, err error) {
	text, err := os.ReadFile(r.Path(accountsBoot))
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	return b, err
}

// accountsFiles are all that is kept for a boot, in the order in which it goes.
var accountsFiles = []string{
	filepath.Join(controlFolder, rebootTimerWants, accountsUnit), filepath.Join(controlFolder, accountsUnit),
	accountsBoot, accountsBefore, accountsAfter, accountsAgent,
}

// accountsHalfDropped tells whether something is left of what was kept for a boot, and means nothing any more. What is being kept
// just now looks the same: that is a job's work.
func accountsHalfDropped(r machine.Root) bool {
	return !isThere(r.Path(accountsBoot)) && slices.ContainsFunc(append([]string{accountsFolder}, accountsFiles...), func(name string) bool {
		return isThere(r.Path(name))
	})
}

// dropAccountsForBoot removes what was kept, and leaves the folders as they were found.
func dropAccountsForBoot(r machine.Root) error {
	var problems []error
	for _, name := range accountsFiles {
		if err := os.Remove(r.Path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	// A boot that found it again would put back what has changed since.
	if r.Exists(accountsFolder) {
		problems = append(problems, r.Disk.SyncFolder(r.Path(accountsFolder)))
	}
	// Only what is empty goes.
	for _, folder := range []string{filepath.Join(controlFolder, rebootTimerWants), controlFolder, accountsFolder} {
		_ = os.Remove(r.Path(folder))
	}
	return errors.Join(problems...)
}

// dropAccountsOf is dropAccountsForBoot for what owner has kept.
func dropAccountsOf(r machine.Root, owner string) error {
	if b, err := readBootAccounts(r); err != nil || b.Owner != owner {
		return nil
	}
	return dropAccountsForBoot(r)
}

// RunAccountsBack is what a boot starts while accounts are kept for it.
func RunAccountsBack(ctx context.Context) error { return accountsBack(ctx, machine.Root{}) }

// accountsBack puts the accounts back if the system that they are kept for was booted. In the boot of the system that is tried
// it notes what that has made of them.
func accountsBack(ctx context.Context, r machine.Root) error {
	b, err := readBootAccounts(r)
	if errors.Is(err, os.ErrNotExist) || err == nil && b.BootID == r.BootID() {
		return nil
	}
	if err != nil {
		return errors.Join(err, dropAccountsForBoot(r))
	}
	switch booted := r.StorePath("/run/booted-system"); {
	case booted == b.Old:
		err = restoreAccountsAtBoot(r)
		return errors.Join(err, dropAccountsForBoot(r))
	case b.Owner == ownerTrial && booted == b.New:
		if r.Exists(accountsAfter) {
			return nil
		}
		return noteAccounts(r, accountsAfter)
	case b.Owner == ownerTrial:
		return nil
	}
	// It was committed, or somebody has chosen another system: nothing is to be put back there.
	return dropAccountsForBoot(r)
}

func restoreAccountsAtBoot(r machine.Root) error {
	was, err := userdb.Load(r.Path(accountsBefore))
	if err != nil {
		return err
	}
	return userdb.RestoreAtBoot(r.Dir, was, loadAccounts(r, accountsAfter))
}

// noteAccounts writes down what the accounts are now.
func noteAccounts(r machine.Root, name string) error {
	is, err := userdb.Read(r.Dir)
	if err != nil {
		return err
	}
	return is.Keep(r.Path(name))
}

// loadAccounts is what was noted; nil: nothing was.
func loadAccounts(r machine.Root, name string) *userdb.State {
	if s, err := userdb.Load(r.Path(name)); err == nil {
		return &s
	}
	return nil
}

// accountsBeforeReboot puts the accounts back in the system that is tried, before it reboots into the old one, whose boot then
// finds nobody whom it would remove.
func accountsBeforeReboot(r machine.Root) error {
	if b, err := readBootAccounts(r); err != nil || b.Owner != ownerTrial {
		return nil
	}
	was, err := userdb.Load(r.Path(accountsBefore))
	if err != nil {
		return err
	}
	if err := userdb.Restore(r.Dir, was, loadAccounts(r, accountsAfter)); err != nil {
		return err
	}
	// What others have changed meanwhile is in it now.
	return noteAccounts(r, accountsBefore)
}

// endAccountsOfTrial ends what a trial has kept: in the old system, if its boot has not put the accounts back, that is done now.
func endAccountsOfTrial(r machine.Root) error {
	b, err := readBootAccounts(r)
	if err != nil || b.Owner != ownerTrial {
		return nil
	}
	if b.BootID != r.BootID() && r.StorePath("/run/booted-system") == b.Old {
		err = restoreAccountsAtBoot(r)
	}
	return errors.Join(err, dropAccountsForBoot(r))
}

// keepAccountsOfTrial is the part of a trial's preparation that is about accounts. It gives the reason if they cannot be kept.
func keepAccountsOfTrial(r machine.Root, t trial) string {
	was, err := userdb.Read(r.Dir)
	if err == nil {
		err = keepAccountsForBoot(r, was, bootAccounts{Old: t.Old, New: t.New, Owner: ownerTrial})
	}
	if err != nil {
		return "users whom the new system changes would not be put back: " + run.Clean(err.Error())
	}
	return ""
}

// removeOldAccounts removes what a switch has kept that is over and has not come to remove it.
func removeOldAccounts(r machine.Root) {
	b, err := readBootAccounts(r)
	if errors.Is(err, os.ErrNotExist) {
		whileNobodyWorks(r, func() {
			if accountsHalfDropped(r) {
				_ = dropAccountsForBoot(r)
			}
		})
		return
	}
	if err != nil || b.Owner == ownerTrial || b.BootID == r.BootID() && r.StorePath("/run/current-system") == b.New {
		return
	}
	folder := r.Path(filepath.Join(machine.RunFolder, b.Owner))
	if _, ended, _ := readStatus(folder); !ended {
		if _, err := os.Stat(folder); err == nil {
			return
		}
	}
	_ = dropAccountsForBoot(r)
}
