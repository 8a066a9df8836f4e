package lockout

import (
	"cmp"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"ferry/internal/agent/machine"
)

// sshdSettings are the settings of an sshd for one login, by keyword in lower case.
type sshdSettings struct {
	values map[string][]string
	// unsure are keywords that depend on what is not known here.
	unsure map[string]bool
	// incomplete says that a part could not be read: any keyword may be in it.
	incomplete bool
}

// accumulating are the keywords whose lines add up; of others the first line counts.
var accumulating = []string{"port", "listenaddress", "allowusers", "denyusers", "allowgroups", "denygroups"}

// first gives a keyword's value in lower case; known is false if it depends on what is not known.
func (s sshdSettings) first(keyword, otherwise string) (value string, known bool) {
	if s.incomplete || s.unsure[keyword] {
		return "", false
	}
	if v := s.values[keyword]; len(v) > 0 {
		return strings.ToLower(v[0]), true
	}
	return otherwise, true
}

// words gives all the words of a keyword.
func (s sshdSettings) words(keyword string, otherwise ...string) (words []string, known bool) {
	if s.incomplete || s.unsure[keyword] {
		return nil, false
	}
	if v := s.values[keyword]; len(v) > 0 {
		return v, true
	}
	return otherwise, true
}

// parseSSHDDump reads what sshd -T prints.
func parseSSHDDump(text string) sshdSettings {
	s := sshdSettings{values: map[string][]string{}}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 2 {
			s.values[strings.ToLower(f[0])] = append(s.values[strings.ToLower(f[0])], f[1:]...)
		}
	}
	return s
}

// maxIncludes bounds how deep configurations include each other.
const maxIncludes = 8

// readSSHDConfig reads an sshd_config and what it includes. outside tells that something was included that is not of the
// store, so that sshd itself, asked now, would read another file than then.
func (v etcView) readSSHDConfig() (settings sshdSettings, found machine.Presence, outside bool) {
	text, found := v.read("ssh/sshd_config")
	settings = sshdSettings{values: map[string][]string{}, unsure: map[string]bool{}}
	if found == machine.Present {
		outside = v.parseSSHD(&settings, text, false, 0)
	}
	return settings, found, outside
}

// parseSSHD adds the lines of text. conditional says that they are below a Match.
func (v etcView) parseSSHD(s *sshdSettings, text string, conditional bool, depth int) (outside bool) {
	for line := range strings.Lines(text) {
		keyword, words := sshdLine(line)
		switch {
		case keyword == "":
		case keyword == "match":
			conditional = len(words) != 1 || !strings.EqualFold(words[0], "all")
		case keyword == "include":
			for _, pattern := range words {
				if !path.IsAbs(pattern) {
					pattern = "/etc/ssh/" + pattern
				}
				outside = v.includeSSHD(s, path.Clean(pattern), conditional, depth) || outside
			}
		case conditional:
			s.unsure[keyword] = true
		case len(words) == 0:
		case slices.Contains(accumulating, keyword) || s.values[keyword] == nil:
			s.values[keyword] = append(s.values[keyword], words...)
		}
	}
	return outside
}

func (v etcView) includeSSHD(s *sshdSettings, pattern string, conditional bool, depth int) (outside bool) {
	outside = !strings.HasPrefix(pattern, machine.StoreFolder+"/")
	if depth >= maxIncludes {
		s.incomplete = true
		return outside
	}
	files := []string{pattern}
	if strings.ContainsAny(pattern, "*?[") {
		name, inEtc := strings.CutPrefix(path.Dir(pattern), "/etc/")
		if !inEtc || strings.ContainsAny(name, "*?[") {
			s.incomplete = true
			return outside
		}
		names, found := v.names(name)
		if found == machine.Unreadable {
			s.incomplete = true
		}
		files = nil
		for _, n := range names {
			if matched, err := filepath.Match(path.Base(pattern), n); matched && err == nil {
				files = append(files, path.Join(path.Dir(pattern), n))
			}
		}
	}
	for _, file := range files {
		text, found := v.absolute(file)
		switch found {
		case machine.Unreadable:
			s.incomplete = true
		case machine.Present:
			// A Match in an included file ends with it.
			outside = v.parseSSHD(s, text, conditional, depth+1) || outside
		}
	}
	return outside
}

// sshdLine splits a line into its keyword, in lower case, and its words.
func sshdLine(line string) (keyword string, words []string) {
	line = strings.TrimSpace(line)
	end := strings.IndexAny(line, " \t=")
	if line == "" || line[0] == '#' || end == 0 {
		return "", nil
	}
	if end < 0 {
		return strings.ToLower(line), nil
	}
	rest := strings.TrimLeft(line[end:], " \t")
	rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), " \t")
	for rest != "" {
		var word string
		if rest[0] == '#' {
			break
		}
		if rest[0] == '"' {
			if word, rest, _ = strings.Cut(rest[1:], `"`); word != "" {
				words = append(words, word)
			}
		} else {
			at := strings.IndexAny(rest, " \t")
			if at < 0 {
				at = len(rest)
			}
			words = append(words, rest[:at])
			rest = rest[at:]
		}
		rest = strings.TrimLeft(rest, " \t")
	}
	return strings.ToLower(line[:end]), words
}

// endpoint is where a server listens; an address that is not valid is any.
type endpoint struct {
	address netip.Addr
	port    uint16
}

// takes tells whether a connection to the address and port at arrives there.
func (e endpoint) takes(at netip.AddrPort) bool {
	if e.port != at.Port() {
		return false
	}
	return !e.address.IsValid() || e.address == at.Addr() || e.address.IsUnspecified() && e.address.Is4() == at.Addr().Is4()
}

// endpoints are where an sshd with these settings listens.
func (s sshdSettings) endpoints() (all []endpoint, known bool) {
	family, familyKnown := s.first("addressfamily", "any")
	portWords, portsKnown := s.words("port", "22")
	listen, listenKnown := s.words("listenaddress")
	if !familyKnown || !portsKnown || !listenKnown {
		return nil, false
	}
	var ports []uint16
	for _, w := range portWords {
		n, err := strconv.ParseUint(w, 10, 16)
		if err != nil {
			return nil, false
		}
		ports = append(ports, uint16(n))
	}
	for i, w := range listen {
		if i > 0 && listen[i-1] == "rdomain" || w == "rdomain" {
			return nil, false
		}
		address, port, ok := parseListen(w)
		if !ok {
			return nil, false
		}
		if port != 0 {
			all = append(all, endpoint{address, port})
			continue
		}
		for _, p := range ports {
			all = append(all, endpoint{address, p})
		}
	}
	if len(listen) == 0 {
		for _, p := range ports {
			all = append(all, endpoint{netip.IPv4Unspecified(), p}, endpoint{netip.IPv6Unspecified(), p})
		}
	}
	return slices.DeleteFunc(all, func(e endpoint) bool {
		return family == "inet" && e.address.Is6() || family == "inet6" && e.address.Is4()
	}), true
}

// parseListen reads ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; no port is 0. A name is no address.
func parseListen(s string) (address netip.Addr, port uint16, ok bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), ap.Port(), true
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if host, number, found := strings.Cut(s, ":"); found && (host == "*" || host == "") {
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			return netip.Addr{}, uint16(n), true
		}
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap().WithZone(""), 0, err == nil
}

// parseSocket reads where a systemd socket unit and its drop-ins listen.
func parseSocket(texts ...string) (all []endpoint, known bool) {
	for _, text := range texts {
		for line := range strings.Lines(text) {
			value, ok := strings.CutPrefix(strings.TrimSpace(line), "ListenStream=")
			if !ok {
				continue
			}
			value = strings.TrimSpace(value)
			if value == "" {
				// An empty one takes back those before.
				all = nil
				continue
			}
			if strings.HasPrefix(value, "/") || strings.HasPrefix(value, "@") || strings.HasPrefix(value, "vsock:") {
				continue
			}
			if n, err := strconv.ParseUint(value, 10, 16); err == nil {
				all = append(all, endpoint{port: uint16(n)})
				continue
			}
			address, port, ok := parseListen(value)
			if !ok || port == 0 {
				return nil, false
			}
			if address == netip.IPv6Unspecified() {
				// systemd's sockets take both, unless told otherwise.
				address = netip.Addr{}
			}
			all = append(all, endpoint{address, port})
		}
	}
	return all, true
}

// admits tells whether sshd's lists of users and groups let the login in, as far as that can be known; if not, why.
func (s sshdSettings) admits(l machine.Login, groups []string, groupsKnown bool) (why string, admitted bool) {
	deny, denyKnown := s.words("denyusers")
	allow, allowKnown := s.words("allowusers")
	denyGroups, denyGroupsKnown := s.words("denygroups")
	allowGroups, allowGroupsKnown := s.words("allowgroups")
	user := func(list []string, unknownHost bool) bool {
		return slices.ContainsFunc(list, func(p string) bool { return matchUser(p, l, unknownHost) })
	}
	group := func(list []string) bool {
		return slices.ContainsFunc(list, func(p string) bool {
			return slices.ContainsFunc(groups, func(g string) bool { return matchPattern(p, g) })
		})
	}
	switch {
	case denyKnown && !negates(deny) && user(deny, false):
		return "DenyUsers", false
	case allowKnown && len(allow) > 0 && !negates(allow) && !user(allow, true):
		return "AllowUsers", false
	case groupsKnown && denyGroupsKnown && !negates(denyGroups) && group(denyGroups):
		return "DenyGroups", false
	case groupsKnown && allowGroupsKnown && len(allowGroups) > 0 && !negates(allowGroups) && !group(allowGroups):
		return "AllowGroups", false
	}
	return "", true
}

// negates tells whether a list has exceptions, which are not looked into.
func negates(list []string) bool {
	return slices.ContainsFunc(list, func(p string) bool { return strings.HasPrefix(p, "!") })
}

// matchUser matches USER or USER@HOST. A host's name is not known here: then the answer is unknownHost.
func matchUser(pattern string, l machine.Login, unknownHost bool) bool {
	at := strings.LastIndexByte(pattern, '@')
	if at < 0 {
		return matchPattern(pattern, l.User)
	}
	if !matchPattern(pattern[:at], l.User) {
		return false
	}
	host := pattern[at+1:]
	if prefix, err := netip.ParsePrefix(host); err == nil {
		return prefix.Contains(l.Client.Addr())
	}
	if matchPattern(host, l.Client.Addr().String()) {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	return unknownHost
}

// matchPattern matches sshd's patterns: * is any text, ? any character.
func matchPattern(pattern, s string) bool {
	// Back to after the last star, with one more character of s eaten by it: no star before it can do better.
	star, mark, p, i := -1, 0, 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// ports names the ports of endpoints, for people.
func ports(all []endpoint) string {
	var numbers []int
	for _, e := range all {
		numbers = append(numbers, int(e.port))
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	var words []string
	for _, n := range numbers {
		words = append(words, strconv.Itoa(n))
	}
	return cmp.Or(strings.Join(words, ", "), "none")
}

// addresses names the addresses of endpoints, for people.
func addresses(all []endpoint) string {
	var words []string
	for _, e := range all {
		word := "any"
		if e.address.IsValid() {
			word = e.address.String()
		}
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}
