package target

import (
	"strings"
	"testing"
	"unicode"
)

func TestParseAddress(t *testing.T) {
	for name, c := range map[string]struct {
		in               string
		user, host, port string
		known            string
	}{
		"host":             {"raspberry-pi.local", "", "raspberry-pi.local", "", "raspberry-pi.local"},
		"user and host":    {"alice@pi", "alice", "pi", "", "pi"},
		"user of a domain": {"alice@corp@pi", "alice@corp", "pi", "", "pi"},
		"IPv6":             {"alice@fe80::1%eth0", "alice", "fe80::1%eth0", "", "fe80::1%eth0"},
		"URL":              {"ssh://alice@pi", "alice", "pi", "", "pi"},
		"URL with port":    {"ssh://alice@pi:2222", "alice", "pi", "2222", "[pi]:2222"},
		"URL with slash":   {"ssh://alice@pi:22/", "alice", "pi", "22", "pi"},
		"URL with IPv6":    {"ssh://[fe80::1]:2222", "", "fe80::1", "2222", "[fe80::1]:2222"},
		"other letters":    {"zoë@kühlschrank", "zoë", "kühlschrank", "", "kühlschrank"},
		"this machine":     {"local", "", "local", "", "local"},
		"host called so":   {"ssh://local", "", "local", "", "local"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := ParseAddress(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if a.user != c.user || a.Host() != c.host || a.port != c.port || a.knownHost() != c.known || a.String() != c.in {
				t.Errorf("got %+v, known as %q", a, a.knownHost())
			}
			login := c.host
			if c.user != "" {
				login = c.user + "@" + c.host
			}
			if a.Login() != login || a.User() != c.user || a.Port() != c.port {
				t.Errorf("login %q, user %q, port %q", a.Login(), a.User(), a.Port())
			}
			if a.Local() != (c.in == "local") {
				t.Errorf("Local is %v", a.Local())
			}
		})
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for name, c := range map[string]struct{ in, says string }{
		"nothing":                 {"", "empty"},
		"an option":               {"-oProxyCommand=x", "dash"},
		"an option as host":       {"alice@-oProxyCommand=x", "dash"},
		"an option as URL host":   {"ssh://-oProxyCommand=x", "dash"},
		"an option as URL user":   {"ssh://-oProxyCommand=x@host", "dash"},
		"a space":                 {"my host", "not allowed"},
		"a line break":            {"host\nother", "not allowed"},
		"a quote":                 {"it's", "not allowed"},
		"a command":               {"host;reboot", "not allowed"},
		"a substitution":          {"$(reboot)@host", "not allowed"},
		"an encoded substitution": {"ssh://a%24%28x%29@host", "not allowed"},
		"an encoded space":        {"ssh://a%20b@host", "not allowed"},
		"an escape sequence":      {"host\x1b[31m", "not allowed"},
		"an invisible mark":       {"host\u202e", "not allowed"},
		"not UTF-8":               {"host\xff", "UTF-8"},
		"no host":                 {"alice@", "no host"},
		"no user":                 {"@host", "empty user"},
		"no URL user":             {"ssh://@host", "empty user"},
		"a password":              {"ssh://alice:secret@host", "password"},
		"a path":                  {"ssh://host/path", "ends after the port"},
		"a query":                 {"ssh://host?x", "not allowed"},
		"a bad port":              {"ssh://host:port", "not a valid"},
		"only a scheme":           {"ssh://", "no host"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := ParseAddress(c.in)
			if err == nil {
				t.Fatalf("accepted as %+v", a)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error does not say %q: %v", c.says, err)
			}
		})
	}
}

// An address goes into ssh's command line, and from there into whatever the user's ssh configuration makes of %h and %r.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"alice@pi", "-oX", "ssh://a@b:22/", "ssh://%2doX@h", "a@-b", "ssh://[::1]:22", "a@b@", "ssh://x%00y@h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		for _, word := range []string{a.String(), a.user, a.Host(), a.knownHost()} {
			if strings.HasPrefix(word, "-") {
				t.Errorf("%q can be an option", word)
			}
			for _, r := range word {
				if unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune("'\"`\\$;&|<>()", r) {
					t.Errorf("%q contains %q", word, r)
				}
			}
		}
		if a.Host() == "" {
			t.Error("no host")
		}
	})
}
