package lockout

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"ferry/internal/agent/machine"
)

// accounts are the users and groups that a system declares.
type accounts struct {
	Mutable bool           `json:"mutableUsers"`
	Users   []account      `json:"users"`
	Groups  []accountGroup `json:"groups"`

	known bool
	// keepsOthers says that users that the system does not declare stay, if none did before.
	keepsOthers bool
	// userborn says that userborn makes them, which locks users and sets groups as they are declared.
	userborn bool
}

type account struct {
	Name           string  `json:"name"`
	Group          string  `json:"group"`
	Shell          string  `json:"shell"`
	Expires        string  `json:"expires"`
	HashedPassword *string `json:"hashedPassword"`
	Password       *string `json:"password"`
	// PasswordFile is the older name of HashedPasswordFile.
	PasswordFile       *string `json:"passwordFile"`
	HashedPasswordFile *string `json:"hashedPasswordFile"`
}

type accountGroup struct {
	Name    string   `json:"name"`
	Members []string `json:"members"`
}

func (a accounts) user(name string) (account, bool) {
	n := slices.IndexFunc(a.Users, func(u account) bool { return u.Name == name })
	if n < 0 {
		return account{}, false
	}
	return a.Users[n], true
}

func (a accounts) hasGroup(name string) bool {
	return slices.ContainsFunc(a.Groups, func(g accountGroup) bool { return g.Name == name })
}

// NixOS hands what it declares to a program as a file of the store: an activation script does it, or the unit of userborn.
var (
	usersGroupsFile = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-users-groups\.json`)
	userbornFile    = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-userborn\.json`)
)

// accounts reads what the system declares. Not known is what another program does, such as systemd-sysusers, which
// removes nobody.
func (v etcView) accounts() accounts {
	script, _ := v.files.Read(v.toplevel+"/activate", v.toplevel, machine.StoreFolder)
	if name := usersGroupsFile.FindString(script); name != "" {
		a := parseAccounts(v.storeText(name))
		a.keepsOthers = a.Mutable
		return a
	}
	unit, _ := v.unit("userborn.service")
	if name := userbornFile.FindString(unit); name != "" {
		a := parseAccounts(v.storeText(name))
		a.keepsOthers, a.userborn = true, true
		return a
	}
	return accounts{}
}

func (v etcView) storeText(name string) string {
	text, _ := v.files.Read(name, machine.StoreFolder)
	return text
}

// usersAsBefore tells that the system does nothing to users and groups that this program knows of.
func (v etcView) usersAsBefore() bool {
	_, sysusers := v.read("sysusers.d/00-nixos.conf")
	_, userborn := v.unit("userborn.service")
	script, _ := v.files.Read(v.toplevel+"/activate", v.toplevel, machine.StoreFolder)
	return sysusers == machine.Absent && userborn == machine.Absent && !strings.Contains(script, "users-groups")
}

func parseAccounts(text string) accounts {
	var a accounts
	if text == "" || json.Unmarshal([]byte(text), &a) != nil || len(a.Users) == 0 {
		return accounts{}
	}
	a.known = true
	return a
}

// noLogin tells whether a shell is one of those that let nobody in.
func noLogin(shell string) bool {
	name := path.Base(shell)
	return name == "nologin" || name == "false"
}

// machineAccounts are the users and groups that the machine has now.
type machineAccounts struct {
	known   bool
	groups  map[string][]string // members by group
	numbers map[string]string   // groups by number
	main    map[string]string   // numbers of main groups by user
	// What systems before have declared.
	declaredUsers, declaredGroups []string
}

func (i *inspection) readMachine() machineAccounts {
	m := machineAccounts{groups: map[string][]string{}, numbers: map[string]string{}, main: map[string]string{}}
	group, groupFound := i.files.Read("/etc/group", machine.PasswordFolders...)
	passwd, passwdFound := i.files.Read("/etc/passwd", machine.PasswordFolders...)
	m.known = groupFound == machine.Present && passwdFound == machine.Present
	for line := range strings.Lines(group) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) == 4 {
			m.groups[f[0]] = strings.Split(f[3], ",")
			m.numbers[f[2]] = f[0]
		}
	}
	for line := range strings.Lines(passwd) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) == 7 {
			m.main[f[0]] = f[3]
		}
	}
	users, _ := i.files.Read("/var/lib/nixos/declarative-users", "/var/lib/nixos")
	groups, _ := i.files.Read("/var/lib/nixos/declarative-groups", "/var/lib/nixos")
	m.declaredUsers, m.declaredGroups = strings.Fields(users), strings.Fields(groups)
	return m
}

// primary is the name of the user's main group.
func (m machineAccounts) primary(user string) string { return m.numbers[m.main[user]] }

// groupsOf are all the groups of a user, sorted.
func (m machineAccounts) groupsOf(user string) []string {
	groups := []string{m.primary(user)}
	for name, members := range m.groups {
		if slices.Contains(members, user) {
			groups = append(groups, name)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// hasPasswordAfter tells whether the user will have a password to give to sudo.
func (i *inspection) hasPasswordAfter() (has, known bool) {
	account, declared := i.after.user(i.login.User)
	switch {
	case i.after.userborn:
		// Its file does not say whether passwords may be changed by hand.
		return false, false
	case declared && i.after.known && !i.after.Mutable:
		if account.Password != nil || account.PasswordFile != nil || account.HashedPasswordFile != nil {
			return true, true
		}
		return account.HashedPassword != nil && unlocked(*account.HashedPassword), true
	}
	return i.hasPassword()
}

// lacksPassword tells that the user is known to have no password now: who became root all the same needs none.
func (i *inspection) lacksPassword() bool {
	has, known := i.hasPassword()
	return known && !has
}

// hasPassword tells whether the user has a password now.
func (i *inspection) hasPassword() (has, known bool) {
	shadow, found := i.files.Read("/etc/shadow", machine.PasswordFolders...)
	if found != machine.Present {
		return false, false
	}
	for line := range strings.Lines(shadow) {
		if f := strings.Split(line, ":"); len(f) > 1 && f[0] == i.login.User {
			return unlocked(f[1]), true
		}
	}
	return false, false
}

// unlocked tells whether a hash is of a password that may be given.
func unlocked(hash string) bool { return hash != "" && hash[0] != '!' && hash[0] != '*' }

// Declaration is the file of the store in which a system declares its users: two systems with the same one make the same of
// them. "" for a system that removes nobody, or of which that is not known.
func Declaration(r machine.Root, toplevel string) string {
	v := etcView{files: machine.NewFiles(r), toplevel: toplevel}
	script, _ := v.files.Read(toplevel+"/activate", toplevel, machine.StoreFolder)
	if name := usersGroupsFile.FindString(script); name != "" {
		return name
	}
	unit, _ := v.unit("userborn.service")
	return userbornFile.FindString(unit)
}
