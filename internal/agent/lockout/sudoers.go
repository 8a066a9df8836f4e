package lockout

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ferry/internal/agent/machine"
)

// verdict is an answer that may not be known.
type verdict int

const (
	no verdict = iota
	perhaps
	yes
)

// grant is what the rules of sudo or doas give a user: any command as root, and without a password.
type grant struct {
	allowed    verdict
	noPassword verdict
}

// asker is who asks sudo or doas.
type asker struct {
	user        string
	uid         int
	groups      []string
	groupsKnown bool
}

func (a asker) inGroup(name string) verdict {
	switch {
	case slices.Contains(a.groups, name):
		return yes
	case !a.groupsKnown:
		return perhaps
	}
	return no
}

// sudoers are the lines of a sudoers file and those that it includes.
type sudoers struct {
	lines []string
	// incomplete says that a part could not be read.
	incomplete bool
}

// readSudoers reads a sudoers file by its path below /etc. found is that of the file itself.
func (v etcView) readSudoers(name string) (s sudoers, found machine.Presence) {
	found = v.addSudoers(&s, "/etc/"+name, 0)
	return s, found
}

func (v etcView) addSudoers(s *sudoers, file string, depth int) machine.Presence {
	if depth > maxIncludes {
		s.incomplete = true
		return machine.Unreadable
	}
	text, found := v.absolute(file)
	if found == machine.Unreadable {
		s.incomplete = true
	}
	for _, line := range sudoersLines(text) {
		keyword, argument, _ := strings.Cut(line[1:], " ")
		argument = strings.Trim(strings.TrimSpace(argument), `"`)
		switch {
		case line[0] != '#' && line[0] != '@' || !strings.HasPrefix(keyword, "include"):
			s.lines = append(s.lines, line)
		case strings.ContainsAny(argument, `%\`):
			s.incomplete = true
		case keyword == "include":
			if !path.IsAbs(argument) {
				argument = path.Join(path.Dir(file), argument)
			}
			v.addSudoers(s, argument, depth+1)
		case keyword == "includedir":
			v.addSudoersFolder(s, argument, depth)
		}
	}
	return found
}

func (v etcView) addSudoersFolder(s *sudoers, folder string, depth int) {
	name, inEtc := strings.CutPrefix(path.Clean(folder), "/etc/")
	if !inEtc {
		s.incomplete = true
		return
	}
	names, found := v.names(name)
	if found == machine.Unreadable {
		s.incomplete = true
	}
	for _, n := range names {
		if !strings.Contains(n, ".") && !strings.HasSuffix(n, "~") {
			v.addSudoers(s, path.Join("/etc", name, n), depth+1)
		}
	}
}

var (
	listComma = regexp.MustCompile(`[ \t]*,[ \t]*`)
	blanks    = regexp.MustCompile(`[ \t]+`)
)

// sudoersLines gives the lines with content: joined where they go on, without comments, blanks made one.
func sudoersLines(text string) []string {
	text = strings.ReplaceAll(text, "\\\n", " ")
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#include") {
			line = blanks.ReplaceAllString(line, " ")
			lines = append(lines, line)
			continue
		}
		line = cutComment(line)
		line = strings.TrimSpace(listComma.ReplaceAllString(blanks.ReplaceAllString(line, " "), ","))
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// cutComment cuts a line at its comment. A number after the sign is a user's.
func cutComment(line string) string {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '\\':
			i++
		case line[i] == '"':
			quoted = !quoted
		case line[i] == '#' && !quoted && (i+1 == len(line) || line[i+1] < '0' || line[i+1] > '9'):
			return line[:i]
		}
	}
	return line
}

// give tells what the rules give who asks. As in sudo, the last rule that fits counts.
func (s sudoers) give(who asker) grant {
	aliases := s.aliases()
	g := grant{}
	if s.incomplete {
		g = grant{perhaps, perhaps}
	}
	unsurePassword := false
	for _, line := range s.lines {
		first, _, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(first, "Defaults"):
			for _, word := range []string{"authenticate", "rootpw", "targetpw", "runaspw"} {
				unsurePassword = unsurePassword || strings.Contains(line, word)
			}
		case strings.HasSuffix(first, "_Alias"), first[0] == '#' && strings.HasPrefix(first, "#include"), first[0] == '@':
		default:
			g = who.rule(g, line, aliases)
		}
	}
	if unsurePassword || s.incomplete && g.noPassword == no {
		g.noPassword = perhaps
	}
	return g
}

// sudoAliases are the aliases of users and of those to run as. All that matters of the others is that they are some.
type sudoAliases struct {
	lists map[string]string
	// answers are those found so far: whether who asks is in the list.
	answers map[string]verdict
}

func (s sudoers) aliases() sudoAliases {
	aliases := sudoAliases{map[string]string{}, map[string]verdict{}}
	for _, line := range s.lines {
		first, rest, _ := strings.Cut(line, " ")
		if !strings.HasSuffix(first, "_Alias") {
			continue
		}
		for definition := range strings.SplitSeq(rest, ":") {
			name, list, ok := strings.Cut(definition, "=")
			if ok && (first == "User_Alias" || first == "Runas_Alias") {
				aliases.lists[strings.TrimSpace(name)] = strings.TrimSpace(list)
			}
		}
	}
	return aliases
}

// rule applies one line "USERS HOSTS = (RUNAS) TAGS: COMMANDS".
func (a asker) rule(g grant, line string, aliases sudoAliases) grant {
	left, right, ok := strings.Cut(line, "=")
	f := strings.Fields(left)
	if !ok {
		return g
	}
	fits := perhaps
	if len(f) == 2 {
		fits = a.matches(f[0], aliases)
		if f[1] != "ALL" && fits == yes {
			fits = perhaps
		}
	}
	if strings.Contains(right, "=") && fits == yes {
		// Another host's commands, or an option.
		fits = perhaps
	}
	if fits == no {
		return g
	}
	asRoot, tag := yes, no
	for _, command := range splitOutside(right, ',') {
		command = strings.TrimSpace(command)
		if strings.HasPrefix(command, "(") {
			runas, rest, _ := strings.Cut(command[1:], ")")
			asRoot, command = runsAsRoot(runas, aliases), strings.TrimSpace(rest)
		}
		for {
			name, rest, ok := strings.Cut(command, ":")
			if !ok || strings.ToUpper(name) != name || strings.ContainsAny(name, "/ !") {
				break
			}
			switch name {
			case "NOPASSWD":
				tag = yes
			case "PASSWD":
				tag = no
			}
			command = strings.TrimSpace(rest)
		}
		g = g.command(command, min(fits, asRoot), tag)
	}
	return g
}

// command applies one command of a rule that fits.
func (g grant) command(command string, fits, noPassword verdict) grant {
	switch {
	case fits == no || command == "":
	case command == "ALL" && fits == yes:
		g = grant{yes, noPassword}
	case command == "!ALL" && fits == yes:
		g = grant{}
	case g.allowed == yes:
		// It is taken away in part, or given once more in another way.
		if strings.HasPrefix(command, "!") {
			g.allowed = perhaps
		} else if noPassword != g.noPassword {
			g.noPassword = perhaps
		}
	default:
		g = grant{perhaps, perhaps}
	}
	return g
}

// matches tells whether a list of users has who asks in it. The last entry that fits counts.
func (a asker) matches(list string, aliases sudoAliases) verdict {
	answer := no
	for entry := range strings.SplitSeq(list, ",") {
		name := strings.TrimLeft(entry, "!")
		fits := a.matchesOne(name, aliases)
		if fits == no {
			continue
		}
		if (len(entry)-len(name))%2 == 1 {
			fits = yes - fits
		}
		answer = fits
	}
	return answer
}

func (a asker) matchesOne(name string, aliases sudoAliases) verdict {
	list, isAlias := aliases.lists[name]
	switch {
	case name == "ALL", name == a.user:
		return yes
	case isAlias:
		if answer, known := aliases.answers[name]; known {
			return answer
		}
		// Until it is known: an alias may contain itself.
		aliases.answers[name] = perhaps
		aliases.answers[name] = a.matches(list, aliases)
		return aliases.answers[name]
	case name == "#"+strconv.Itoa(a.uid):
		return yes
	case strings.HasPrefix(name, "%#"), strings.HasPrefix(name, "%:"), strings.HasPrefix(name, "+"), strings.ContainsAny(name, `"\`):
		return perhaps
	case strings.HasPrefix(name, "%"):
		return a.inGroup(name[1:])
	}
	return no
}

// runsAsRoot tells whether root is among those that a rule lets one run as: "USERS:GROUPS".
func runsAsRoot(spec string, aliases sudoAliases) verdict {
	users, _, _ := strings.Cut(spec, ":")
	users = strings.TrimSpace(users)
	if strings.Contains(users, "!") {
		return perhaps
	}
	answer := no
	for name := range strings.SplitSeq(users, ",") {
		name = strings.TrimSpace(name)
		_, isAlias := aliases.lists[name]
		switch {
		case name == "ALL", name == "root", name == "#0":
			return yes
		case isAlias, strings.HasPrefix(name, "%"), strings.HasPrefix(name, "+"):
			answer = perhaps
		}
	}
	return answer
}

// splitOutside splits at a character that is not in parentheses.
func splitOutside(s string, at byte) []string {
	var parts []string
	depth, start := 0, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '(':
			depth++
		case s[i] == ')':
			depth--
		case s[i] == at && depth <= 0:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[min(start, len(s)):])
}
