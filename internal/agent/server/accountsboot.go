package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"ferry/internal/agent"
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

// declaration is the file of the store in which a system declares its users: two systems with the same one make the same of
// them. "" for a system that removes nobody, or of which that is not known.
func (r root) declaration(toplevel string) string {
	v := etcView{files: newInspectedFiles(r), toplevel: toplevel}
	script, _ := v.files.read(toplevel+"/activate", toplevel, storeFolder)
	if name := usersGroupsFile.FindString(script); name != "" {
		return name
	}
	unit, _ := v.unit("userborn.service")
	return userbornFile.FindString(unit)
}

// keepAccountsForBoot keeps the accounts for a boot of the system old, of which new may change them. What is kept for the same
// system already, as by a test that is followed by another one, is what that boot needs: it stays, with what others have
// changed since.
func (r root) keepAccountsForBoot(was userdb.State, b bootAccounts) error {
	if b.Old == "" || b.Old == b.New || r.declaration(b.Old) == r.declaration(b.New) {
		return nil
	}
	if kept, err := r.bootAccounts(); err == nil && kept.Old == b.Old && kept.BootID == b.BootID && b.Owner != ownerTrial {
		return r.keepAccountsOn()
	}
	if !r.exists(systemdRuns) {
		return errors.New("PID 1 is not systemd")
	}
	for _, folder := range []string{controlFolder, accountsFolder} {
		if on := r.mountOf(folder); on.kind == "tmpfs" || on.kind == "ramfs" {
			return fmt.Errorf("%s does not outlive a reboot there", folder)
		}
	}
	b.BootID = r.bootID()
	if err := r.writeAccountsForBoot(was, b); err != nil {
		return errors.Join(err, r.dropAccountsForBoot())
	}
	return nil
}

// keepAccountsOn makes what is kept for a boot what that would put back now.
func (r root) keepAccountsOn() error {
	was, err := userdb.Load(r.path(accountsBefore))
	if err != nil {
		return err
	}
	is, err := userdb.Read(r.dir)
	if err != nil {
		return err
	}
	if err := userdb.Undone(was, r.accountsAfter(accountsAfter), is).Keep(r.path(accountsBefore)); err != nil {
		return err
	}
	return removeLink(r.path(accountsAfter))
}

func (r root) writeAccountsForBoot(was userdb.State, b bootAccounts) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	folder := r.path(accountsFolder)
	if err := r.disk.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		return err
	}
	if err := os.Remove(r.path(accountsAfter)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := was.Keep(r.path(accountsBefore)); err != nil {
		return err
	}
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := r.disk.WriteFile(r.path(accountsBoot), text, 0o600); err != nil {
		return err
	}
	if err := copyProgram(program, r.path(accountsAgent)); err != nil {
		return err
	}
	if err := r.disk.SyncFolder(folder); err != nil {
		return err
	}
	wants := r.path(filepath.Join(controlFolder, wayBackWants))
	if err := r.disk.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := r.disk.WriteFile(r.path(filepath.Join(controlFolder, accountsUnit)), []byte(accountsUnitText), 0o644); err != nil {
		return err
	}
	return r.disk.Link("../"+accountsUnit, filepath.Join(wants, accountsUnit))
}

// bootAccounts reads what is kept; [os.ErrNotExist]: nothing is.
func (r root) bootAccounts() (b bootAccounts, err error) {
	text, err := os.ReadFile(r.path(accountsBoot))
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	return b, err
}

// dropAccountsForBoot removes what was kept, and leaves the folders as they were found.
func (r root) dropAccountsForBoot() error {
	var problems []error
	for _, name := range []string{
		filepath.Join(controlFolder, wayBackWants, accountsUnit), filepath.Join(controlFolder, accountsUnit),
		accountsBoot, accountsBefore, accountsAfter, accountsAgent,
	} {
		if err := os.Remove(r.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	// A boot that found it again would put back what has changed since.
	if r.exists(accountsFolder) {
		problems = append(problems, r.disk.SyncFolder(r.path(accountsFolder)))
	}
	// Only what is empty goes.
	for _, folder := range []string{filepath.Join(controlFolder, wayBackWants), controlFolder, accountsFolder} {
		_ = os.Remove(r.path(folder))
	}
	return errors.Join(problems...)
}

// dropAccountsOf is dropAccountsForBoot for what owner has kept.
func (r root) dropAccountsOf(owner string) error {
	if b, err := r.bootAccounts(); err != nil || b.Owner != owner {
		return nil
	}
	return r.dropAccountsForBoot()
}

// RunAccountsBack is what a boot starts while accounts are kept for it.
func RunAccountsBack(ctx context.Context) error { return accountsBack(ctx, root{}) }

// accountsBack puts the accounts back if the system that they are kept for was booted. In the boot of the system that is tried
// it notes what that has made of them.
func accountsBack(ctx context.Context, r root) error {
	b, err := r.bootAccounts()
	if errors.Is(err, os.ErrNotExist) || err == nil && b.BootID == r.bootID() {
		return nil
	}
	if err != nil {
		return errors.Join(err, r.dropAccountsForBoot())
	}
	switch booted := r.storePath("/run/booted-system"); {
	case booted == b.Old:
		err = r.putBackAccountsAtBoot()
		return errors.Join(err, r.dropAccountsForBoot())
	case b.Owner == ownerTrial && booted == b.New:
		if r.exists(accountsAfter) {
			return nil
		}
		return r.noteAccounts(accountsAfter)
	case b.Owner == ownerTrial:
		return nil
	}
	// It was committed, or somebody has chosen another system: nothing is to be put back there.
	return r.dropAccountsForBoot()
}

func (r root) putBackAccountsAtBoot() error {
	was, err := userdb.Load(r.path(accountsBefore))
	if err != nil {
		return err
	}
	return userdb.PutBackAtBoot(r.dir, was, r.accountsAfter(accountsAfter))
}

// noteAccounts writes down what the accounts are now.
func (r root) noteAccounts(name string) error {
	is, err := userdb.Read(r.dir)
	if err != nil {
		return err
	}
	return is.Keep(r.path(name))
}

// accountsAfter is what was noted; nil: nothing was.
func (r root) accountsAfter(name string) *userdb.State {
	if s, err := userdb.Load(r.path(name)); err == nil {
		return &s
	}
	return nil
}

// accountsBeforeReboot puts the accounts back in the system that is tried, before it reboots into the old one, whose boot then
// finds nobody whom it would remove.
func (r root) accountsBeforeReboot() error {
	if b, err := r.bootAccounts(); err != nil || b.Owner != ownerTrial {
		return nil
	}
	was, err := userdb.Load(r.path(accountsBefore))
	if err != nil {
		return err
	}
	if err := userdb.PutBack(r.dir, was, r.accountsAfter(accountsAfter)); err != nil {
		return err
	}
	// What others have changed meanwhile is in it now.
	return r.noteAccounts(accountsBefore)
}

// endAccountsOfTrial ends what a trial has kept: in the old system, if its boot has not put the accounts back, that is done now.
func (r root) endAccountsOfTrial() error {
	b, err := r.bootAccounts()
	if err != nil || b.Owner != ownerTrial {
		return nil
	}
	if b.BootID != r.bootID() && r.storePath("/run/booted-system") == b.Old {
		err = r.putBackAccountsAtBoot()
	}
	return errors.Join(err, r.dropAccountsForBoot())
}

// keepAccountsOfTrial is the part of a trial's preparation that is about accounts. It gives the reason if they cannot be kept.
func (r root) keepAccountsOfTrial(t trial) string {
	was, err := userdb.Read(r.dir)
	if err == nil {
		err = r.keepAccountsForBoot(was, bootAccounts{Old: t.Old, New: t.New, Owner: ownerTrial})
	}
	if err != nil {
		return "users whom the new system changes would not be put back: " + run.Clean(err.Error())
	}
	return ""
}

// removeOldAccounts removes what a switch has kept that is over and has not come to remove it.
func removeOldAccounts(r root) {
	b, err := r.bootAccounts()
	if err != nil || b.Owner == ownerTrial || b.BootID == r.bootID() && r.storePath("/run/current-system") == b.New {
		return
	}
	folder := r.path(filepath.Join(jobsFolder, b.Owner))
	if _, ended, _ := readStatus(folder); !ended {
		if _, err := os.Stat(folder); err == nil {
			return
		}
	}
	_ = r.dropAccountsForBoot()
}
