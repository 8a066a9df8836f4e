package lockout

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// sshdUnits are the names that NixOS and other distributions give to OpenSSH's units, sockets first: where a socket waits,
// the service is not wanted by anything.
var sshdUnits = []string{"sshd.socket", "ssh.socket", "sshd.service", "ssh.service"}

// sshdUnit is the unit that makes a system answer to ssh.
type sshdUnit struct {
	name  string // "": there is none
	text  string
	known bool
}

func (v etcView) sshdUnit() sshdUnit {
	wanted, known := v.wanted()
	if !known {
		return sshdUnit{}
	}
	for _, name := range sshdUnits {
		text, found := v.unit(name)
		_, isWanted := slices.BinarySearch(wanted, name)
		switch masked := found == machine.Present && text == ""; {
		case masked, !isWanted:
		case found == machine.Unreadable && strings.HasSuffix(name, ".socket"):
			return sshdUnit{}
		default:
			return sshdUnit{name, text, true}
		}
	}
	return sshdUnit{known: true}
}

// listens gives where a system answers to ssh.
func (v etcView) listens(unit sshdUnit, settings sshdSettings) (all []endpoint, known bool) {
	if !strings.HasSuffix(unit.name, ".socket") {
		return settings.endpoints()
	}
	if unit.text == "" {
		return nil, false
	}
	texts := []string{unit.text}
	names, found := v.names("systemd/system/" + unit.name + ".d")
	if found == machine.Unreadable {
		return nil, false
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".conf") {
			continue
		}
		text, found := v.unit(unit.name + ".d/" + name)
		if found == machine.Unreadable {
			return nil, false
		}
		texts = append(texts, text)
	}
	return parseSocket(texts...)
}

// inspectSSHD compares what lets a login over ssh in. It ends at the first thing that nothing else matters beside.
func (i *inspection) inspectSSHD(ctx context.Context) {
	before, after := i.old.sshdUnit(), i.new.sshdUnit()
	if !before.known || before.name == "" || !i.servedBy(before) {
		// The login goes through something that is not known here.
		return
	}
	if after.known && after.name == "" {
		i.risk(agent.RiskSSHD, "sshd is off in the new system")
		return
	}
	settings, found, outside := i.new.readSSHDConfig()
	if found != machine.Present {
		return
	}
	if !outside {
		if exact, ok := i.askSSHD(ctx); ok {
			settings = exact
		}
	}
	oldSettings, _, _ := i.old.readSSHDConfig()
	i.inspectPort(before, after, oldSettings, settings)
	if i.userStays() {
		i.inspectAuthentication(settings)
		i.inspectKeys(oldSettings, settings)
	}
}

// servedBy tells whether the login came through the system's own sshd, and not through another one beside it.
func (i *inspection) servedBy(unit sshdUnit) bool {
	name, _, _ := strings.Cut(i.login.Unit, "@")
	name = strings.TrimSuffix(name, ".service")
	return name == "" || strings.TrimSuffix(strings.TrimSuffix(unit.name, ".socket"), ".service") == name
}

// inspectPort compares where sshd listens with where this connection came in.
func (i *inspection) inspectPort(before, after sshdUnit, oldSettings, settings sshdSettings) {
	at := i.login.Server
	if !at.IsValid() || after.name == "" {
		return
	}
	was, known := i.old.listens(before, oldSettings)
	if !known || !takes(was, at) {
		return
	}
	will, known := i.new.listens(after, settings)
	if !known || takes(will, at) {
		return
	}
	for _, e := range will {
		if e.port == at.Port() {
			i.risk(agent.RiskPort, fmt.Sprintf("sshd listens only on %s in the new system, and this connection uses %s", addresses(will), at.Addr()))
			return
		}
	}
	many := ""
	if strings.Contains(ports(will), ",") {
		many = "s"
	}
	i.risk(agent.RiskPort, fmt.Sprintf("sshd listens on port%s %s in the new system, and this connection uses %d", many, ports(will), at.Port()))
}

// inspectAuthentication looks whether the new settings let this user in, and in this way.
func (i *inspection) inspectAuthentication(settings sshdSettings) {
	l := i.login
	groups, groupsKnown := i.groupsAfter()
	if why, admitted := settings.admits(l, groups, groupsKnown); !admitted {
		i.risk(agent.RiskLogin, fmt.Sprintf("%s of sshd keeps %s out in the new system", why, l.User))
	}
	root, rootKnown := settings.first("permitrootlogin", "prohibit-password")
	password, passwordKnown := settings.first("passwordauthentication", "yes")
	keyboard, keyboardKnown := settings.first("kbdinteractiveauthentication", "")
	if keyboard == "" && keyboardKnown {
		keyboard, keyboardKnown = settings.first("challengeresponseauthentication", "yes")
	}
	keys, keysKnown := settings.first("pubkeyauthentication", "yes")
	byPassword := l.Method == "password" || strings.HasPrefix(l.Method, "keyboard-interactive")
	noPasswords := passwordKnown && password == "no" && keyboardKnown && keyboard == "no"
	switch {
	case rootKnown && l.UID == 0 && root == "no":
		i.risk(agent.RiskLogin, "root may not log in over ssh in the new system")
	case rootKnown && l.UID == 0 && root == "forced-commands-only":
		i.risk(agent.RiskLogin, "root may run only its keys' own commands over ssh in the new system")
	case rootKnown && l.UID == 0 && byPassword && (root == "prohibit-password" || root == "without-password"):
		i.risk(agent.RiskLogin, "root may not log in by password in the new system, as this login did")
	case byPassword && noPasswords:
		i.risk(agent.RiskLogin, "sshd takes no passwords in the new system, and this login used one")
	case l.Method == "publickey" && keysKnown && keys == "no":
		i.risk(agent.RiskLogin, "sshd takes no keys in the new system, and this login used one")
	}
}

// inspectKeys looks whether the key in use, or if that is not known the user's keys, are still there.
func (i *inspection) inspectKeys(oldSettings, settings sshdSettings) {
	l := i.login
	if l.Method != "" && l.Method != "publickey" || l.Certificate {
		return
	}
	before, after := i.old.userKeys(l, oldSettings), i.new.userKeys(l, settings)
	if after.unknown || len(before.keys) == 0 {
		return
	}
	if l.Key != "" {
		k, was := before.has(l.Key)
		if _, is := after.has(l.Key); was && !is {
			name := k.Fingerprint
			if k.Comment != "" {
				name += ", " + k.Comment
			}
			i.risk(agent.RiskKey, fmt.Sprintf("the key that this login used (%s) is not %s's in the new system", name, l.User))
		}
		return
	}
	gone := 0
	for _, k := range before.keys {
		if _, is := after.has(k.Fingerprint); !is {
			gone++
		}
	}
	switch {
	case len(after.keys) == 0:
		i.risk(agent.RiskKey, fmt.Sprintf("%s has no ssh key in the new system", l.User))
	case gone > 0:
		i.risk(agent.RiskKey, fmt.Sprintf("%d of the %d ssh keys of %s are gone in the new system, and it is not known which one this login used",
			gone, len(before.keys), l.User))
	}
}

// askSSHD lets the new system's own sshd say its settings for this login, which is more exact than reading them.
func (i *inspection) askSSHD(ctx context.Context) (sshdSettings, bool) {
	config, found := i.files.Resolve(i.new.toplevel + "/etc/ssh/sshd_config")
	program, ok := i.sshdProgram()
	if found != machine.Present || !ok || !machine.Below(config, []string{machine.StoreFolder}) {
		return sshdSettings{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, machine.AskLimit)
	defer cancel()
	l := i.login
	about := fmt.Sprintf("user=%s,host=%s,addr=%s", l.User, l.Client.Addr(), l.Client.Addr())
	if strings.ContainsAny(l.User, ", ") || !l.Client.IsValid() || !l.Server.IsValid() {
		return sshdSettings{}, false
	}
	about += fmt.Sprintf(",laddr=%s,lport=%d", l.Server.Addr(), l.Server.Port())
	out, err := i.runner.Output(ctx, run.Command{
		Argv: []string{i.root.Path(program), "-T", "-f", i.root.Path(config), "-C", about}, Grace: time.Second,
	})
	if err != nil || len(out) > machine.MaxFile {
		return sshdSettings{}, false
	}
	settings := parseSSHDDump(string(out))
	return settings, len(settings.values["port"]) > 0
}

// sshdProgram is the program that the new system's unit starts.
func (i *inspection) sshdProgram() (string, bool) {
	for _, unit := range []string{"sshd.service", "sshd@.service"} {
		text, _ := i.new.unit(unit)
		for line := range strings.Lines(text) {
			command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=")
			words := strings.Fields(strings.TrimLeft(command, "-@:+!"))
			if !ok || len(words) == 0 || path.Base(words[0]) != "sshd" {
				continue
			}
			if resolved, found := i.files.Resolve(words[0]); found == machine.Present && machine.Below(resolved, []string{machine.StoreFolder}) {
				return words[0], true
			}
		}
	}
	return "", false
}

func takes(all []endpoint, at netip.AddrPort) bool {
	return slices.ContainsFunc(all, func(e endpoint) bool { return e.takes(at) })
}
