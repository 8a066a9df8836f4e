package lockout

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// inspectRoot looks whether sudo, or doas, will still make root of the user.
func (i *inspection) inspectRoot() {
	program, user := i.login.Elevate, i.login.User
	was, _ := i.rules(i.old, program, i.groupsBefore)
	will, found := i.rules(i.new, program, i.groupsAfter)
	switch {
	case was.allowed == perhaps:
		i.unsure = append(i.unsure, fmt.Sprintf("whether %s could still make %s root: its rules cannot be read without root, or could not be parsed", program, user))
	case was.allowed != yes:
		// It is allowed by something that is not known here.
	case found == machine.Absent:
		i.risk(agent.RiskSudo, fmt.Sprintf("%s has no rules in the new system: %s cannot become root with it", program, user))
	case will.allowed == no:
		reason := "none of its rules is for this user"
		if groups := i.groupsLost(); len(groups) > 0 {
			reason = "the user is no longer in the group " + strings.Join(groups, ", ")
		}
		i.risk(agent.RiskSudo, fmt.Sprintf("%s does not let %s become root in the new system: %s", program, user, reason))
	case will.allowed == yes && will.noPassword == no && i.onlyPasswords(program):
		if has, known := i.hasPasswordAfter(); known && !has && (was.noPassword == yes || !i.lacksPassword()) {
			i.risk(agent.RiskSudo, fmt.Sprintf("%s asks %s for a password in the new system, and the user has none", program, user))
		}
	}
}

// rules gives what a program's rules in a system's /etc give the user.
func (i *inspection) rules(v etcView, program string, groups func() ([]string, bool)) (grant, machine.Presence) {
	who := asker{user: i.login.User, uid: i.login.UID}
	who.groups, who.groupsKnown = groups()
	if program == "doas" {
		text, found := v.read("doas.conf")
		if found == machine.Unreadable {
			return grant{perhaps, perhaps}, found
		}
		return giveDoas(text, who), found
	}
	rules, found := v.readSudoers("sudoers")
	if found == machine.Unreadable {
		return grant{perhaps, perhaps}, found
	}
	return rules.give(who), found
}

// groupsLost are the groups that the user is in and will not be in.
func (i *inspection) groupsLost() []string {
	before, known := i.groupsBefore()
	after, afterKnown := i.groupsAfter()
	if !known || !afterKnown {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(before), func(g string) bool { return slices.Contains(after, g) })
}

// onlyPasswords tells that the program asks for nothing but the user's password: no agent, token or fingerprint.
func (i *inspection) onlyPasswords(program string) bool {
	return i.new.onlyPasswords(program, 0)
}

func (v etcView) onlyPasswords(service string, depth int) bool {
	text, found := v.read("pam.d/" + service)
	if found != machine.Present || depth > maxIncludes {
		return false
	}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "@include":
			if !v.onlyPasswords(path.Base(f[1]), depth+1) {
				return false
			}
		case len(f) < 3 || strings.TrimPrefix(f[0], "-") != "auth":
		default:
			known := slices.ContainsFunc(f[2:], func(word string) bool {
				switch path.Base(word) {
				case "pam_unix.so", "pam_deny.so", "pam_permit.so", "pam_env.so", "pam_nologin.so", "pam_faillock.so", "pam_cap.so", "pam_rootok.so", "pam_warn.so":
					return true
				}
				return false
			})
			if !known {
				return false
			}
		}
	}
	return true
}

// giveDoas tells what the rules of doas.conf give who asks. The last rule that fits counts.
func giveDoas(text string, who asker) grant {
	g := grant{}
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(strings.NewReplacer("{", " { ", "}", " } ").Replace(line))
		if len(f) < 2 || f[0] != "permit" && f[0] != "deny" {
			continue
		}
		noPassword, n, inSet := no, 1, false
	options:
		for ; n < len(f); n++ {
			switch {
			case inSet:
				inSet = f[n] != "}"
			case f[n] == "nopass":
				noPassword = yes
			case f[n] == "setenv", f[n] == "persist", f[n] == "keepenv", f[n] == "nolog":
			case f[n] == "{":
				inSet = true
			default:
				break options
			}
		}
		if n == len(f) {
			continue
		}
		fits, rest := who.matchesDoas(f[n]), f[n+1:]
		if len(rest) >= 2 && rest[0] == "as" {
			if rest[1] != "root" {
				continue
			}
			rest = rest[2:]
		}
		if len(rest) > 0 && fits == yes {
			// One command of many.
			fits = perhaps
		}
		switch {
		case fits == no:
		case fits == perhaps:
			g = grant{perhaps, perhaps}
		case f[0] == "deny":
			g = grant{}
		default:
			g = grant{yes, noPassword}
		}
	}
	return g
}

func (a asker) matchesDoas(identity string) verdict {
	identity = strings.Trim(identity, `"`)
	if group, isGroup := strings.CutPrefix(identity, ":"); isGroup {
		if strings.Trim(group, "0123456789") == "" {
			return perhaps
		}
		return a.inGroup(group)
	}
	if identity == a.user || identity == fmt.Sprint(a.uid) {
		return yes
	}
	return no
}
