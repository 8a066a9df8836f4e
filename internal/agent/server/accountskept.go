package server

import (
	"errors"
	"os"
	"path/filepath"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
	"ferry/internal/userdb"
)

// What a switch keeps of the machine's accounts, in its job's folder. Both have password hashes in them, and are root's alone.
const (
	keptBefore = "accounts-before"
	keptAfter  = "accounts-after"
)

// keepAccounts keeps the accounts as they are, before anything changes.
func (g *guard) keepAccounts() error {
	was, err := g.accountsToKeep()
	if err != nil {
		return err
	}
	if err := was.Keep(filepath.Join(g.dir, keptBefore)); err != nil {
		return err
	}
	// What boots after a power cut is the system profile's system.
	err = keepAccountsForBoot(g.root, was, bootAccounts{
		Old: g.state.Before.Profile, New: string(g.job.Toplevel), BootID: g.root.BootID(), Owner: filepath.Base(g.dir),
	})
	if err != nil {
		g.say("if the power is cut before the commit, users whom the new system changes are not put back: %s", run.Clean(err.Error()))
	}
	return nil
}

// accountsToKeep are the accounts of what this switch would roll back to: those that are there, unless an earlier one was to go
// back there and could not.
func (g *guard) accountsToKeep() (userdb.State, error) {
	if g.state.Found != g.state.Before.Current {
		files, err := filepath.Glob(g.root.Path(filepath.Join(machine.RunFolder, "*-"+string(JobSwitch), keptBefore)))
		if err != nil {
			return userdb.State{}, err
		}
		for _, file := range files {
			if state, err := readState(filepath.Dir(file)); err == nil && state.Before.Current == g.state.Before.Current {
				return userdb.Load(file)
			}
		}
	}
	return userdb.Read(g.root.Dir)
}

// noteAccounts writes down what the activation has made of the accounts: what differs from that later is somebody else's.
func (g *guard) noteAccounts() {
	is, err := userdb.Read(g.root.Dir)
	if err == nil {
		err = is.Keep(filepath.Join(g.dir, keptAfter))
	}
	if b, problem := readBootAccounts(g.root); err == nil && problem == nil && b.Owner != ownerTrial {
		err = is.Keep(g.root.Path(accountsAfter))
	}
	if err != nil {
		g.say("what others change in the accounts from now on is lost if this is rolled back: %s", run.Clean(err.Error()))
	}
}

// restoreAccounts makes the accounts what they were, before the old system is activated: that one removes whom the new one
// has declared and it does not. It gives what they are then; nil if that is not known.
func (g *guard) restoreAccounts() *userdb.State {
	was, err := userdb.Load(filepath.Join(g.dir, keptBefore))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		var after *userdb.State
		if s, problem := userdb.Load(filepath.Join(g.dir, keptAfter)); problem == nil {
			after = &s
		}
		err = userdb.Restore(g.root.Dir, was, after)
	}
	if err != nil {
		// They may be once the old system has been activated.
		g.say("%s", run.Clean(err.Error()))
		return &was
	}
	is, err := userdb.Read(g.root.Dir)
	if err != nil {
		return &was
	}
	return &is
}

// completeAccounts puts back what the old system's activation has not left as it was. It says what could not be.
func (g *guard) completeAccounts(want *userdb.State) string {
	if want == nil {
		return ""
	}
	if err := userdb.Complete(g.root.Dir, *want); err != nil {
		return run.Clean(err.Error())
	}
	return ""
}

// lastChange is what the last commit has changed in the accounts, if it has: a rollback undoes that. It has password hashes of
// those in it whom the new system has removed or changed, and is root's alone.
const lastChange = agent.Folder + "/last-accounts"

// keepChange keeps what the new system has changed, for a rollback to the one before.
func (g *guard) keepChange() error {
	was, err := userdb.Load(filepath.Join(g.dir, keptBefore))
	after, problem := userdb.Load(filepath.Join(g.dir, keptAfter))
	if err != nil || problem != nil {
		// Nobody knows what has changed.
		return machine.RemoveLink(g.root.Path(lastChange))
	}
	c, changed := userdb.Difference(was, after)
	if c.From, c.To = g.state.Before.Current, string(g.job.Toplevel); c.From == c.To {
		return nil
	}
	if !changed {
		return machine.RemoveLink(g.root.Path(lastChange))
	}
	return c.Keep(g.root.Path(lastChange))
}

// undoneBy gives what a switch from one system to another undoes: what the switch the other way has changed; ok is false for any
// other switch.
func undoneBy(r machine.Root, from, to string) (c userdb.Change, ok bool) {
	c, err := userdb.LoadChange(r.Path(lastChange))
	return c, err == nil && from != "" && c.From == to && c.To == from
}

// returnAccounts makes the accounts what they were before the system that runs, if the switch returns to the one before: as a
// way back does, but long after. The function it gives does the rest, after the activation.
func (g *guard) returnAccounts() (complete func()) {
	c, ok := undoneBy(g.root, g.state.Before.Current, string(g.job.Toplevel))
	if !ok {
		return func() {}
	}
	err := c.Undo(g.root.Dir)
	var want userdb.State
	if err == nil {
		want, err = userdb.Read(g.root.Dir)
	}
	return func() {
		if err == nil {
			err = c.Complete(g.root.Dir, want)
		}
		if err != nil {
			g.say("%s", run.Clean(err.Error()))
		}
	}
}

// forgetAccounts removes what was kept, unless it is needed yet: by who tries to roll back once more, or by the next boot after a test.
func (g *guard) forgetAccounts(status jobStatus) {
	var err error
	switch status.Outcome {
	case agent.SwitchStranded:
		return
	case agent.SwitchCommitted:
		err = errors.Join(g.keepChange(), dropAccountsForBoot(g.root))
	case agent.SwitchActivated:
	default:
		err = dropAccountsOf(g.root, filepath.Base(g.dir))
		if b, problem := readBootAccounts(g.root); problem == nil && b.Owner != ownerTrial {
			// A test before this one is still to be ended by a boot.
			err = errors.Join(err, noteAccounts(g.root, accountsAfter))
		}
	}
	for _, name := range []string{keptBefore, keptAfter} {
		if problem := os.Remove(filepath.Join(g.dir, name)); !errors.Is(problem, os.ErrNotExist) {
			err = errors.Join(err, problem)
		}
	}
	if err != nil {
		g.say("what was kept of the accounts could not be removed: %s", run.Clean(err.Error()))
	}
}
