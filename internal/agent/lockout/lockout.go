package lockout

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
	"ferry/internal/userdb"
)

// inspection compares the system that runs with one that is to run, for the login that deploys it.
type inspection struct {
	root   machine.Root
	runner *run.Runner
	files  *machine.Files
	login  machine.Login
	now    time.Time
	// interfaces are the names of those that have an address.
	interfaces map[netip.Addr]string

	old, new      etcView
	before, after accounts
	machine       machineAccounts
	// guarded says that the switch is, and undone what it undoes in the accounts; nil: nothing.
	guarded bool
	undone  *userdb.Change
	risks   []agent.Risk
	unsure  []string // what could not be found out
}

// Question is what is asked: whether a login is still let in when another system runs.
type Question struct {
	Root   machine.Root
	Runner *run.Runner
	Login  machine.Login
	// Old is the toplevel that runs, and New the one that is to run.
	Old, New string
	// Foreseen are the files of New where that is not here yet; nil: it is.
	Foreseen *Foreseen
	// Guarded says that the switch is, and so undoes in the accounts what Undone says; nil: nothing.
	Guarded bool
	Undone  *userdb.Change
}

// Answer is what may lock the login out, and what could not be found out of that.
type Answer struct {
	Risks  []agent.Risk
	Unsure []string
}

// Ask compares the two systems for the login. Nothing is changed. Where New is not here yet, [Foreseen.Wanted] is then what else of
// it has to be known: the answer is one only if that is nothing.
func Ask(ctx context.Context, q Question) Answer {
	i := newInspection(q.Root, q.Runner, q.Login, q.Old, q.New)
	if q.Foreseen != nil {
		i.files.Foreseen = q.Foreseen.at
	}
	i.interfaces = interfaces()
	i.guarded, i.undone = q.Guarded, q.Undone
	i.run(ctx)
	return Answer{Risks: i.risks, Unsure: i.unsure}
}

func newInspection(r machine.Root, runner *run.Runner, l machine.Login, current, toplevel string) *inspection {
	files := machine.NewFiles(r)
	return &inspection{
		root: r, runner: runner, files: files, login: l, now: time.Now(),
		old: etcView{files: files, toplevel: current}, new: etcView{files: files, toplevel: toplevel, before: current},
	}
}

func (i *inspection) run(ctx context.Context) {
	i.before, i.after = i.old.accounts(), i.new.accounts()
	if i.after.userborn && !i.before.userborn {
		// What it takes over from another program is not known here.
		i.after.known = false
	}
	i.machine = i.readMachine()
	if i.login.User != "" {
		i.inspectUser()
	}
	if i.login.SSH {
		i.inspectSSHD(ctx)
		i.inspectAddress()
		i.inspectFirewall()
	}
	if i.login.Elevate != "" && i.userStays() {
		i.inspectRoot()
	}
}

func (i *inspection) risk(kind agent.RiskKind, text string) {
	i.risks = append(i.risks, agent.Risk{Kind: kind, Text: run.Clean(text)})
}

// inspectUser looks whether the user is still there and may log in.
func (i *inspection) inspectUser() {
	user := i.login.User
	if !i.userStays() {
		i.risk(agent.RiskUser, fmt.Sprintf("the new system does not have the user %s any more", user))
		return
	}
	account, declared := i.after.user(user)
	if !declared {
		return
	}
	was, _ := i.before.user(user)
	if noLogin(account.Shell) && !noLogin(was.Shell) {
		i.risk(agent.RiskUser, fmt.Sprintf("%s has no login shell in the new system (%s)", user, account.Shell))
	}
	i.inspectRollback()
	if today := i.now.UTC().Format(time.DateOnly); account.Expires != "" && account.Expires <= today {
		i.risk(agent.RiskUser, fmt.Sprintf("the user %s has expired in the new system, on %s", user, account.Expires))
	}
}

// inspectRollback looks whether a rollback would remove the user: NixOS removes who was declared, and the system that runs does
// not declare this one. The accounts are put back, where that can be.
func (i *inspection) inspectRollback() {
	user := i.login.User
	if _, declared := i.before.user(user); declared || !i.before.known || i.before.userborn || i.login.UID == 0 {
		return
	}
	if err := userdb.Writable(i.root.Dir); err != nil {
		i.risk(agent.RiskUser, fmt.Sprintf("a rollback would remove the user %s, whom the new system declares and the one that runs does not: %v", user, err))
	}
}

// userStays tells that the user is not known to go.
func (i *inspection) userStays() bool {
	user := i.login.User
	if _, declared := i.after.user(user); declared || !i.after.known || i.login.UID == 0 || user == "" {
		return true
	}
	return i.after.keepsOthers && !i.declaredBefore(user)
}

// comesBack tells whether this switch brings the user back whom the system that runs has taken over.
func (i *inspection) comesBack() bool {
	return i.guarded && i.after.keepsOthers && i.undone != nil && i.undone.Brings(i.login.User)
}

// declaredBefore tells whether the user is there because a system declared it, and goes with it.
func (i *inspection) declaredBefore(user string) bool {
	if user == i.login.User && i.comesBack() {
		return false
	}
	_, declared := i.before.user(user)
	return declared || slices.Contains(i.machine.declaredUsers, user)
}

// groupsBefore are the groups that the user is in now.
func (i *inspection) groupsBefore() (groups []string, known bool) {
	return i.machine.groupsOf(i.login.User), i.machine.known
}

// groupsAfter are the groups that the user will be in, by the rules by which NixOS merges what a system declares with what
// the machine has.
func (i *inspection) groupsAfter() (groups []string, known bool) {
	user, before := i.login.User, i.machine.groupsOf(i.login.User)
	if !i.after.known || !i.machine.known {
		return before, i.machine.known && i.new.usersAsBefore()
	}
	for _, g := range i.after.Groups {
		kept := i.after.keepsOthers && !i.after.userborn && slices.Contains(before, g.Name) && !i.declaredBefore(user)
		if slices.Contains(g.Members, user) || kept {
			groups = append(groups, g.Name)
		}
	}
	if account, declared := i.after.user(user); declared {
		groups = append(groups, account.Group)
	} else {
		groups = append(groups, i.machine.primary(user))
	}
	for _, name := range before {
		if !i.after.hasGroup(name) && i.after.keepsOthers && !i.before.hasGroup(name) && !slices.Contains(i.machine.declaredGroups, name) {
			groups = append(groups, name)
		}
	}
	return groups, true
}
