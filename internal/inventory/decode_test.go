package inventory

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestWrongInventory has one inventory per mistake. FOLDER in a message is the inventory's folder.
func TestWrongInventory(t *testing.T) {
	node := func(text string) string {
		return `{ nixpkgs = 1; nodes.web1 = { configuration = ./c.nix; ` + text + ` }; }`
	}
	known := "known are checks, configuration, elevate, impure, nixpkgs, passwordFor, source, system, tags, target"
	name := "node %: a name consists of letters, digits, `-`, `_` and `.`, and starts with a letter or digit"
	for title, c := range map[string]struct{ text, want, hint string }{
		"syntax error":                    {"{ nodes = ", "ferry.nix: syntax error, unexpected end of file", ""},
		"list":                            {"[ ]", "ferry.nix: expected an attribute set with `nodes`, found a list", ""},
		"empty":                           {"{ }", "ferry.nix: no attribute `nodes`", "nodes.web1 = {"},
		"throws":                          {`throw "not today"`, "ferry.nix: not today", ""},
		"unknown argument":                {"{ sytem }: { }", "ferry.nix: unknown argument `sytem`: the inventory's function is given `source` and `system`", "did you mean `system`?"},
		"unknown attribute":               {"{ nods = { }; }", "ferry.nix: attribute `nods`: unknown attribute", "did you mean `nodes`?"},
		"nodes is a list":                 {"{ nodes = [ ]; }", "ferry.nix: attribute `nodes`: expected an attribute set, found a list", ""},
		"nodes throw":                     {`{ nodes = throw "no nodes"; }`, "ferry.nix: no nodes", ""},
		"node is a path":                  {"{ nodes.a = ./c.nix; }", "node a: expected an attribute set, found the path \"SOURCE/c.nix\"", "nodes.a = { configuration = ./a.nix; };"},
		"node throws":                     {`{ nodes = { a = throw "gone"; }; }`, "node a: gone", ""},
		"node named like an option":       {`{ nodes."-oProxyCommand=x" = { }; }`, strings.ReplaceAll(name, "%", `-oProxyCommand=x`), "rename it"},
		"node with a space":               {`{ nodes."a b" = { }; }`, strings.ReplaceAll(name, "%", `"a b"`), "rename it"},
		"node with a quote":               {`{ nodes."a'\"b" = { }; }`, strings.ReplaceAll(name, "%", `"a'\"b"`), "rename it"},
		"node with a newline":             {`{ nodes."a\nb" = { }; }`, strings.ReplaceAll(name, "%", `"a\nb"`), "rename it"},
		"node with an interpolation":      {`{ nodes."a\${b}" = { }; }`, strings.ReplaceAll(name, "%", `a${b}`), "rename it"},
		"node without a name":             {`{ nodes."" = { }; }`, `node "": the name is empty`, "rename it"},
		"unknown node attribute":          {node("tgas = [ ];"), "node web1: attribute `tgas`: unknown attribute", "did you mean `tags`?"},
		"far from known":                  {node("deploymentHost = 1;"), "node web1: attribute `deploymentHost`: unknown attribute", known},
		"hostile attribute":               {node(`"a\nb" = 1;`), "node web1: attribute `\"a\\nb\"`: unknown attribute", known},
		"attribute throws":                {node(`tags = throw "no tags";`), "node web1: attribute `tags`: no tags", ""},
		"attribute undefined":             {node(`target = { }.host;`), "node web1: attribute `target`: attribute 'host' missing", ""},
		"configuration missing":           {"{ nodes.a = { }; }", "node a: attribute `configuration`: missing", "configuration = ./a.nix;"},
		"configuration is a set":          {"{ nodes.a.configuration = { }; }", "node a: attribute `configuration`: expected the path of a NixOS configuration, found an attribute set", "put the configuration in a file"},
		"configuration is relative":       {`{ nodes.a.configuration = "c.nix"; }`, "node a: attribute `configuration`: expected a path, found the string \"c.nix\"", "configuration = ./c.nix;"},
		"configuration does not exist":    {"{ nodes.a.configuration = ./d.nix; }", "node a: attribute `configuration`: FOLDER/d.nix does not exist", "did you mean c.nix?"},
		"configuration outside":           {"{ nodes.a.configuration = /etc/hostname; }", "node a: attribute `configuration`: /etc/hostname is outside of the source, FOLDER", "move it there"},
		"configuration next to it":        {"{ nodes.a.configuration = ../d.nix; }", "node a: attribute `configuration`: PARENT/d.nix is outside of the source, FOLDER", "move it there"},
		"configuration behind a link":     {"{ nodes.a.configuration = ./out.nix; }", "node a: attribute `configuration`: out.nix is a symbolic link that leads out of the source, to /etc/hostname", "replace the link"},
		"configuration behind a dead one": {"{ nodes.a.configuration = ./dead.nix; }", "node a: attribute `configuration`: dead.nix is a symbolic link to something that is not in the source", "replace the link"},
		"configuration is a folder":       {"{ nodes.a.configuration = ./folder; }", "node a: attribute `configuration`: FOLDER/folder/default.nix does not exist", ""},
		"no pin":                          {"{ nodes.a.configuration = ./c.nix; }", "node a: attribute `nixpkgs`: missing, and the inventory has none for all nodes", "nixpkgs = fetchTarball"},
		"system is a list":                {node("system = [ ];"), "node web1: attribute `system`: expected a string, found an empty list", ""},
		"system misspelt":                 {node(`system = "aarch64_linux";`), "node web1: attribute `system`: unknown system aarch64_linux: expected one such as \"x86_64-linux\" or \"aarch64-linux\"", "did you mean `aarch64-linux`?"},
		"target is an option":             {node(`target = "-oProxyCommand=x";`), "node web1: attribute `target`: -oProxyCommand=x starts with `-`: ssh would take it for an option", ""},
		"target with a space":             {node(`target = "a b";`), "node web1: attribute `target`: \"a b\" contains a character that no destination has: ' '", ""},
		"target with a newline":           {node(`target = "a\nb";`), "node web1: attribute `target`: \"a\\nb\" contains a character that no destination has: '\\n'", ""},
		"target is empty":                 {node(`target = "";`), "node web1: attribute `target`: expected a destination for ssh or \"local\", found an empty string", ""},
		"no targets":                      {node(`target = [ ];`), "node web1: attribute `target`: expected a string or a list of strings, found an empty list", "target = ["},
		"a target of several is a number": {node(`target = [ "a" 2 ];`), "node web1: attribute `target`: expected a string as element 2, found 2", ""},
		"a later target is an option":     {node(`target = [ "a" "-oProxyCommand=x" ];`), "node web1: attribute `target`: element 2, -oProxyCommand=x: -oProxyCommand=x starts with `-`", ""},
		"local and others":                {node(`target = [ "local" "a" ];`), "node web1: attribute `target`: \"local\" is always reached: it cannot be one of several", ""},
		"target is null":                  {node(`target = null;`), "node web1: attribute `target`: expected a string, found null", ""},
		"tags is a string":                {node(`tags = "home";`), "node web1: attribute `tags`: expected a list of strings, found the string \"home\"", "tags = ["},
		"tag is a number":                 {node(`tags = [ "a" 2 ];`), "node web1: attribute `tags`: expected a string as element 2, found 2", ""},
		"tag with a comma":                {node(`tags = [ "a,b" ];`), "node web1: attribute `tags`: element 1, a,b: a name consists of letters", ""},
		"elevate misspelt":                {node(`elevate = "suod";`), "node web1: attribute `elevate`: expected \"sudo\", \"doas\" or a list with a command and its arguments, found the string \"suod\"", "did you mean `sudo`?"},
		"elevate with nothing":            {node(`elevate = [ ];`), "node web1: attribute `elevate`: expected \"sudo\", \"doas\" or a list with a command and its arguments, found an empty list", ""},
		"elevate with an option":          {node(`elevate = [ "-x" ];`), "node web1: attribute `elevate`: expected a command as the list's first element, found the string \"-x\"", ""},
		"passwordFor is a boolean":        {node(`passwordFor = true;`), "node web1: attribute `passwordFor`: expected a string, found true", ""},
		"passwordFor is empty":            {node(`passwordFor = "";`), "node web1: attribute `passwordFor`: the name is empty", "passwordFor = \"db\";"},
		"impure is a string":              {node(`impure = "yes";`), "node web1: attribute `impure`: expected true or false, found the string \"yes\"", ""},
		"source is a path":                {node(`source = ./folder;`), "node web1: attribute `source`: expected a list of paths, found the path \"SOURCE/folder\"", "source = ["},
		"source with a word":              {node(`source = [ ./folder "folder" ];`), "node web1: attribute `source`: expected a path as element 2, found the string \"folder\"", "source = ["},
		"source with a list":              {node(`source = [ [ ./folder ] ];`), "node web1: attribute `source`: expected a path as element 1, found a list", "source = ["},
		"source that does not exist":      {node(`source = [ ./foldr ];`), "node web1: attribute `source`: FOLDER/foldr does not exist", "did you mean folder?"},
		"source outside":                  {node(`source = [ ../folder ];`), "node web1: attribute `source`: PARENT/folder is outside of the source, FOLDER", "move it there"},
		"source behind a link":            {node(`source = [ ./out.nix ];`), "node web1: attribute `source`: out.nix is a symbolic link that leads out of the source, to /etc/hostname", "replace the link"},
		"checks is a list":                {node(`checks = [ ];`), "node web1: attribute `checks`: expected an attribute set, found an empty list", "http = ["},
	} {
		t.Run(title, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"ferry.nix": c.text, "c.nix": "{ }", "folder/": ""})
			for link, target := range map[string]string{"out.nix": "/etc/hostname", "dead.nix": "nowhere.nix"} {
				if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			e := openError(t, dir, Options{})
			want := strings.NewReplacer("FOLDER", dir, "PARENT", filepath.Dir(dir)).Replace(c.want)
			got := e.Error()
			if i := strings.Index(got, "/nix/store/"); i >= 0 && strings.Contains(want, "SOURCE") {
				got = got[:i] + "SOURCE" + got[i+strings.Index(got[i:], "-source")+len("-source"):]
			}
			if !strings.HasPrefix(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if c.hint == "" != (len(e.Hints()) == 0) || c.hint != "" && !strings.HasPrefix(e.Hints()[0], c.hint) {
				t.Errorf("got hints %q, want %q", e.Hints(), c.hint)
			}
		})
	}
}

func TestEvaluationErrorInTheInventoryShowsTheUsersFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"ferry.nix": "{\n  nodes = import ./nodes.nix;\n}", "nodes.nix": "{ a =\n undefinedName; }"})
	e := openError(t, dir, Options{})
	if want := "undefined variable 'undefinedName'"; !strings.Contains(e.Error(), want) {
		t.Errorf("got %q, want it to contain %q", e, want)
	}
	if trace := strings.Join(e.Trace, "\n"); !strings.Contains(trace, filepath.Join(dir, "nodes.nix")+":2") {
		t.Errorf("the trace does not name the file: %q", trace)
	}
}

func TestNameFromTarget(t *testing.T) {
	for target, want := range map[string]string{
		"raspberry-pi.local":                    "raspberry-pi.local",
		"alice@raspberry-pi.local":              "raspberry-pi.local",
		"alice@example.org@pi":                  "pi",
		"ssh://alice@pi:2222":                   "pi",
		"ssh://alice@pi:2222/x":                 "pi",
		"ssh://[fe80::1%eth0]:22":               "fe80--1-eth0",
		"root@::1":                              "1",
		"local":                                 "local",
		"alice@":                                "",
		"-oProxyCommand=x":                      "",
		"a b":                                   "",
		"a/b":                                   "",
		"ssh://":                                "",
		"alice@" + strings.Repeat("x", maxName): strings.Repeat("x", maxName),
		strings.Repeat("x", maxName+1):          "",
	} {
		got, err := nameFromTarget(target)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("nameFromTarget(%q) = %q, %v, want %q", target, got, err, want)
		}
	}
}

func FuzzDecodeNode(f *testing.F) {
	f.Add(`{"configuration":{"type":"path","value":"/x"},"nixpkgs":{"type":"unread"},"target":{"type":"string","value":"a@b"}}`)
	f.Add(`{"configuration":{"type":"path","value":7},"tags":{"type":"list","items":[{"type":"string"}]},"elevate":{"type":"list"}}`)
	f.Add(`{"configuration":{"type":"path","value":"/x"},"nixpkgs":{},"source":{"type":"list","items":[{"type":"path","value":"/x"},{}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var attributes map[string]description
		if json.Unmarshal([]byte(text), &attributes) != nil {
			return
		}
		located := func(string) (string, error) { return "c", nil }
		n, err := decoder{name: "a", attributes: attributes, system: "x86_64-linux", locateConfig: located, locate: located}.node()
		if err != nil {
			return
		}
		for _, s := range append([]string{n.Target, n.System, n.PasswordFor}, n.Tags...) {
			if strings.HasPrefix(s, "-") || strings.ContainsAny(s, " \t\n\r\x1b\x00") {
				t.Errorf("%q was let through", s)
			}
		}
		if slices.Contains(n.Elevate, "\n") {
			t.Errorf("elevate %q was let through", n.Elevate)
		}
	})
}
