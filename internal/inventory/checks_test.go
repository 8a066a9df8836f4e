package inventory

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// TestWrongChecks has one inventory per mistake: each is told with the path of its attribute.
func TestWrongChecks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"c.nix": "{ }"})
	for title, c := range map[string]struct{ checks, path, want, hint string }{
		"unknown attribute":       {`{ htpp = [ ]; }`, ".htpp", "unknown attribute", "did you mean `http`?"},
		"far from known":          {`{ pings = [ ]; }`, ".pings", "unknown attribute", "known are commands, http, units"},
		"hostile attribute":       {`{ "a\nb" = [ ]; }`, `."a\nb"`, "unknown attribute", "known are"},
		"throws":                  {`{ http = throw "not today"; }`, "", "not today", ""},
		"a package":               {`derivation { name = "x"; }`, "", "expected an attribute set, found a package", "http = ["},
		"units is a string":       {`{ units = "none"; }`, ".units", `expected an attribute set, found the string "none"`, "units.failed ="},
		"unknown in units":        {`{ units.fail = "none"; }`, ".units.fail", "unknown attribute", "did you mean `failed`?"},
		"units.failed is a bool":  {`{ units.failed = true; }`, ".units.failed", "expected a string, found true", ""},
		"unknown policy":          {`{ units.failed = "no-nwe"; }`, ".units.failed", `expected "ignore", "no-new" or "none", found the string "no-nwe"`, "did you mean `no-new`?"},
		"http is a set":           {`{ http.url = "http://a"; }`, ".http", "expected a list of attribute sets, found an attribute set", "http = ["},
		"an URL instead of a set": {`{ http = [ "http://a" ]; }`, ".http[0]", `expected an attribute set, found the string "http://a"`, "http = ["},
		"no URL":                  {`{ http = [ { url = "http://a"; } { } ]; }`, ".http[1].url", "missing", "http = ["},
		"URL is a path":           {`{ http = [ { url = /healthz; } ]; }`, ".http[0].url", `expected a string, found the path "/healthz"`, ""},
		"URL without a scheme":    {`{ http = [ { url = "web1"; } ]; }`, ".http[0].url", `expected a URL that begins with http:// or https://, found "web1"`, ""},
		"URL with a password":     {`{ http = [ { url = "http://a:b@web1"; } ]; }`, ".http[0].url", "a user or password has no place in it", ""},
		"unknown in http":         {`{ http = [ { url = "http://a"; stauts = 1; } ]; }`, ".http[0].stauts", "unknown attribute", "did you mean `status`?"},
		"status is a string":      {`{ http = [ { url = "http://a"; status = "200"; } ]; }`, ".http[0].status", `expected an integer, found the string "200"`, ""},
		"status is a float":       {`{ http = [ { url = "http://a"; status = 200.5; } ]; }`, ".http[0].status", "expected an integer, found 200.5", ""},
		"status is none":          {`{ http = [ { url = "http://a"; status = 2; } ]; }`, ".http[0].status", "expected a status of HTTP from 200 to 599, found 2", ""},
		"from elsewhere":          {`{ http = [ { url = "http://a"; from = "hrer"; } ]; }`, ".http[0].from", `expected "here" or "target", found the string "hrer"`, "did you mean `here`?"},
		"no time":                 {`{ http = [ { url = "http://a"; timeout = 0; } ]; }`, ".http[0].timeout", "expected a number of seconds from 1 to 600, found 0", ""},
		"contains is a list":      {`{ http = [ { url = "http://a"; contains = [ "a" ]; } ]; }`, ".http[0].contains", "expected a string, found a list", ""},
		"a command not in a list": {`{ commands = { run = [ "a" ]; }; }`, ".commands", "expected a list of attribute sets, found an attribute set", "commands = ["},
		"a command without run":   {`{ commands = [ { timeout = 1; } ]; }`, ".commands[0].run", "missing", "commands = ["},
		"run is a string":         {`{ commands = [ { run = "a b"; } ]; }`, ".commands[0].run", `expected a list with a command and its arguments, found the string "a b"`, "commands = ["},
		"run is empty":            {`{ commands = [ { run = [ ]; } ]; }`, ".commands[0].run", "expected a command and its arguments, found an empty list", ""},
		"a number in run":         {`{ commands = [ { run = [ "a" 1 ]; } ]; }`, ".commands[0].run", "expected a string as element 2, found 1", ""},
		"a package as run":        {`{ commands = [ { run = derivation { name = "x"; }; } ]; }`, ".commands[0].run", "expected a list with a command and its arguments, found a package", "commands = ["},
		"unknown in commands":     {`{ commands = [ { run = [ "a" ]; tiemout = 1; } ]; }`, ".commands[0].tiemout", "unknown attribute", "did you mean `timeout`?"},
		"timeout is negative":     {`{ commands = [ { run = [ "a" ]; timeout = -1; } ]; }`, ".commands[0].timeout", "expected a number of seconds from 1 to 600, found -1", ""},
	} {
		t.Run(title, func(t *testing.T) {
			write(t, dir, map[string]string{"ferry.nix": "{ nixpkgs = 1; nodes.web1 = { configuration = ./c.nix; checks = " + c.checks + "; }; }"})
			e := openError(t, dir, Options{})
			if want := "node web1: attribute `checks" + c.path + "`: " + c.want; !strings.HasPrefix(e.Error(), want) {
				t.Errorf("got  %s\nwant %s", e, want)
			}
			if c.hint == "" != (len(e.Hints()) == 0) || c.hint != "" && !strings.HasPrefix(e.Hints()[0], c.hint) {
				t.Errorf("got hints %q, want %q", e.Hints(), c.hint)
			}
		})
	}
}

// What inventory.nix describes comes from the user's own expressions: whatever it is, it is decoded or refused with its place.
func FuzzChecks(f *testing.F) {
	for _, text := range []string{
		`{"type":"set","attributes":{"units":{"type":"set","attributes":{"failed":{"type":"string","value":"none"}}}}}`,
		`{"type":"set","attributes":{"http":{"type":"list","items":[{"type":"set","attributes":{"url":{"type":"string","value":"http://a"},"status":{"type":"int","value":9e9}}}]}}}`,
		`{"type":"set","attributes":{"commands":{"type":"list","items":[{"type":"set","attributes":{"run":{"type":"list","items":[{"type":"path","value":"/a"}]}}}]}}}`,
		`{"type":"set","attributes":{"http":{"type":"list","items":[{"type":"set"}]}}}`,
		`{"type":"string","value":{}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var v description
		if json.Unmarshal(text, &v) != nil {
			return
		}
		c, err := decoder{name: "web1", attributes: map[string]description{"checks": v}}.checks()
		var e *Error
		switch {
		case err == nil:
			if err := c.Validate(); err != nil {
				t.Errorf("accepted, and %v", err)
			}
		case !errors.As(err, &e) || e.Node != "web1" || !strings.HasPrefix(e.Attribute, "checks"):
			t.Errorf("an error without its place: %v", err)
		}
	})
}
