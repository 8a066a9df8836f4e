package lockout

import (
	"path"
	"strconv"
	"strings"

	"ferry/internal/agent/machine"
)

// authorizedKeys is what a system knows of the keys of a user.
type authorizedKeys struct {
	keys []machine.PublicKey
	// unknown says that there may be others: from a command, by certificates, in files that cannot be read.
	unknown bool
}

func (a authorizedKeys) has(fingerprint string) (machine.PublicKey, bool) {
	for _, k := range a.keys {
		if k.Fingerprint == fingerprint {
			return k, true
		}
	}
	return machine.PublicKey{}, false
}

// userKeys reads the keys of a user by the settings of the system's sshd.
func (v etcView) userKeys(l machine.Login, settings sshdSettings) authorizedKeys {
	var all authorizedKeys
	for _, keyword := range []string{"authorizedkeyscommand", "trustedusercakeys"} {
		if value, known := settings.first(keyword, "none"); !known || value != "none" {
			all.unknown = true
		}
	}
	files, known := settings.words("authorizedkeysfile", ".ssh/authorized_keys", ".ssh/authorized_keys2")
	if !known {
		all.unknown = true
	}
	for _, name := range files {
		if name == "none" {
			continue
		}
		name, ok := expandKeyFile(name, l)
		if !ok {
			all.unknown = true
			continue
		}
		text, found := v.absolute(name)
		// The user's own files are the same before and after; the store is where home managers keep theirs.
		if found != machine.Present && l.Home != "/" && machine.Below(name, []string{l.Home}) {
			text, found = v.files.Read(name, l.Home, machine.StoreFolder)
		}
		if found == machine.Unreadable {
			all.unknown = true
		}
		keys, ok := parseAuthorizedKeys(text)
		all.keys = append(all.keys, keys...)
		all.unknown = all.unknown || !ok
	}
	return all
}

// expandKeyFile makes an absolute path of a word of AuthorizedKeysFile.
func expandKeyFile(name string, l machine.Login) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b.WriteByte(name[i])
			continue
		}
		if i++; i == len(name) {
			return "", false
		}
		switch name[i] {
		case '%':
			b.WriteByte('%')
		case 'h':
			b.WriteString(l.Home)
		case 'u':
			b.WriteString(l.User)
		case 'U':
			b.WriteString(strconv.Itoa(l.UID))
		default:
			return "", false
		}
	}
	name = b.String()
	if !path.IsAbs(name) {
		name = l.Home + "/" + name
	}
	return path.Clean(name), path.IsAbs(l.Home)
}

// parseAuthorizedKeys reads the lines of authorized_keys that let someone run any command. It is not complete if
// certificates may log in too.
func parseAuthorizedKeys(text string) (keys []machine.PublicKey, complete bool) {
	complete = true
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if k, ok := machine.ParseKey(line); ok {
			keys = append(keys, k)
			continue
		}
		options, rest := cutOptions(line)
		k, ok := machine.ParseKey(rest)
		switch {
		case !ok:
			continue
		case hasOption(options, "cert-authority"):
			complete = false
		case !hasOption(options, "command"):
			keys = append(keys, k)
		}
	}
	return keys, complete
}

// cutOptions cuts a line after its options, in which a quoted value may have blanks.
func cutOptions(line string) (options, rest string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '\\' && quoted:
			i++
		case line[i] == '"':
			quoted = !quoted
		case (line[i] == ' ' || line[i] == '\t') && !quoted:
			return line[:i], strings.TrimSpace(line[i:])
		}
	}
	return line, ""
}

// hasOption looks for an option outside of quoted values.
func hasOption(options, name string) bool {
	quoted, start := false, 0
	for i := 0; i <= len(options); i++ {
		switch {
		case i < len(options) && options[i] == '\\' && quoted:
			i++
		case i < len(options) && options[i] == '"':
			quoted = !quoted
		case i == len(options) || options[i] == ',' && !quoted:
			option, _, _ := strings.Cut(options[start:min(i, len(options))], "=")
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
			start = i + 1
		}
	}
	return false
}
