package nix

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recordedSource is the snapshot that the recorded messages are about.
const recordedSource = StorePath("/nix/store/62hjwsjiihlbznq4wsggqvl4l2sq38xy-source")

// recorded is what a version of nix-instantiate --show-trace wrote about an expression, as an error.
func recorded(t *testing.T, version, name string) *EvalError {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "eval", version, name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return &EvalError{Trace: string(b)}
}

func TestSummaryIsTheMessageWithoutTheTrace(t *testing.T) {
	option := "A definition for option `services.web.enable' is not of type `boolean'. Definition values:\n" +
		"- In `" + string(recordedSource) + "/pi/configuration.nix': \"two\"\n\nDid you forget a comma?"
	for name, want := range map[string]string{
		"2.8/fail":        "cannot coerce an integer to a string",
		"2.26/fail":       "cannot coerce an integer to a string: 1",
		"2.34/fail":       "cannot coerce an integer to a string: 1",
		"2.34/module":     option,
		"2.8/tracefirst":  "cannot coerce an integer to a string",
		"2.26/tracefirst": "cannot coerce an integer to a string: 1",
		"2.8/syntax":      "syntax error, unexpected '=', expecting ';'",
		"2.26/syntax":     "syntax error, unexpected '=', expecting ';'",
		"2.8/module":      option,
		"2.26/module":     option,
		"2.8/exec":        "attribute 'exec' missing\nDid you mean elem?",
		"2.26/exec":       "attribute 'exec' missing\nDid you mean elem?",
	} {
		version, file, _ := strings.Cut(name, "/")
		if got := recorded(t, version, file).Summary(); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestSummaryOfMessagesThatWereNotRecorded(t *testing.T) {
	for what, c := range map[string]struct{ trace, want string }{
		"none":   {"", "nix-instantiate failed without a message"},
		"colour": {"\x1b[31;1merror:\x1b[0m \x1b[35;1mno\x1b[0m\x1b[2J way", "no way"},
		"a needed build fails": {
			"error: builder for '/nix/store/a-x.drv' failed with exit code 3\nerror: build of '/nix/store/a-x.drv' failed\n",
			"builder for '/nix/store/a-x.drv' failed with exit code 3",
		},
		"starts with an empty line, old": {
			"error: \n       Failed assertions:\n       - no root\n\n       … while evaluating the attribute 'x'\n", "Failed assertions:\n- no root",
		},
		"starts with an empty line, new": {
			"error:\n       … while evaluating the attribute 'x'\n\n       error:\n       Failed assertions:\n       - no root\n",
			"Failed assertions:\n- no root",
		},
		"from a daemon": {"error [nix-daemon]: no\n", "no"},
	} {
		if got := (&EvalError{Trace: c.trace}).Summary(); got != c.want {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}

func TestUserTraceNamesTheUsersFilesNearestFirst(t *testing.T) {
	const root = "/home/me/machines"
	for name, want := range map[string]string{
		"2.8/fail": `at /home/me/machines/pi/configuration.nix:3:33:
     2| let
     3|   hidden = builtins.map (x: x + 1) [ 1 "two" ];
      |                                 ^
     4| in
… while evaluating anonymous lambda
at /home/me/machines/pi/configuration.nix:3:26:
     2| let
     3|   hidden = builtins.map (x: x + 1) [ 1 "two" ];
      |                          ^
     4| in
… while evaluating the attribute 'port'
at /home/me/machines/pi/configuration.nix:6:3:
     5| {
     6|   port = builtins.elemAt hidden 1;
      |   ^
     7| }
… while evaluating the attribute 'out'
at /home/me/machines/lib.nix:2:45:
     1| rec {
     2|   eval = f: let r = f { config = r; }; in { out = builtins.seq r.port r; };
      |                                             ^
     3|   call = f: x: builtins.addErrorContext "while evaluating the option ` + "`services.web.port':\"" + ` (f x);
… while evaluating the file '/home/me/machines/fail.nix':`,
		"2.26/fail": `… while evaluating a path segment
at /home/me/machines/pi/configuration.nix:3:33:
     2| let
     3|   hidden = builtins.map (x: x + 1) [ 1 "two" ];
      |                                 ^
     4| in
… while calling anonymous lambda
at /home/me/machines/pi/configuration.nix:3:26:
     2| let
     3|   hidden = builtins.map (x: x + 1) [ 1 "two" ];
      |                          ^
     4| in
… while calling the 'elemAt' builtin
at /home/me/machines/pi/configuration.nix:6:10:
     5| {
     6|   port = builtins.elemAt hidden 1;
      |          ^
     7| }
… while evaluating the attribute 'port'
at /home/me/machines/pi/configuration.nix:6:3:
     5| {
     6|   port = builtins.elemAt hidden 1;
      |   ^
     7| }
… while calling the 'seq' builtin
at /home/me/machines/lib.nix:2:51:
     1| rec {
     2|   eval = f: let r = f { config = r; }; in { out = builtins.seq r.port r; };
      |                                                   ^
     3|   call = f: x: builtins.addErrorContext "while evaluating the option ` + "`services.web.port':\"" + ` (f x);
… while evaluating the attribute 'out'
at /home/me/machines/lib.nix:2:45:
     1| rec {
     2|   eval = f: let r = f { config = r; }; in { out = builtins.seq r.port r; };
      |                                             ^
     3|   call = f: x: builtins.addErrorContext "while evaluating the option ` + "`services.web.port':\"" + ` (f x);
… while evaluating the file '/home/me/machines/fail.nix':`,
		"2.8/syntax": `at /home/me/machines/syntax.nix:3:5:
     2|   a = 1
     3|   b = 2;
      |     ^
     4| }`,
		"2.26/syntax": `at /home/me/machines/syntax.nix:3:5:
     2|   a = 1
     3|   b = 2;
      |     ^
     4| }`,
		"2.8/module": "… while evaluating definitions from `/home/me/machines/pi/configuration.nix':\n" +
			"… while evaluating the file '/home/me/machines/module.nix':",
	} {
		version, file, _ := strings.Cut(name, "/")
		got := strings.Join(recorded(t, version, file).UserTrace(recordedSource, root), "\n")
		if got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestUserTraceLeavesOutOtherFiles(t *testing.T) {
	e := recorded(t, "2.26", "fail")
	other := StorePath("/nix/store/" + someHash + "-source")
	if got := e.UserTrace(other, "/home/me"); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestIsPurityKnowsWhatPureModeRefused(t *testing.T) {
	for name, want := range map[string][3]string{ // by recorded file: what 2.8, 2.26 and 2.34 name
		"abs":         {"/etc/passwd", "/etc", "/etc/passwd"},
		"readabs":     {"/etc/passwd", "/etc", "/etc/passwd"},
		"home":        {"/root/foo", "~/foo", "~/foo"},
		"lookup":      {"<nixpkgs>", "<nixpkgs>", "<nixpkgs>"},
		"import":      {"<nixpkgs>", "<nixpkgs>", "<nixpkgs>"},
		"sys":         {"builtins.currentSystem", "builtins.currentSystem", "builtins.currentSystem"},
		"currentvar":  {"builtins.currentSystem", "builtins.currentSystem", "builtins.currentSystem"},
		"time":        {"builtins.currentTime", "builtins.currentTime", "builtins.currentTime"},
		"tar":         {"builtins.fetchTarball", "builtins.fetchTarball", "builtins.fetchTarball"},
		"url":         {"builtins.fetchurl", "builtins.fetchurl", "builtins.fetchurl"},
		"git":         {"builtins.fetchTree", "git+https://example.org/x.git?exportIgnore=1", "git+https://example.org/x.git?exportIgnore=1"},
		"gitref":      {"builtins.fetchTree", "git+https://example.org/x.git?exportIgnore=1&ref=main", "git+https://example.org/x.git?exportIgnore=1&ref=main"},
		"tree":        {"builtins.fetchTree", "git+https://example.org/x.git?shallow=1", "git+https://example.org/x.git?shallow=1"},
		"treegh":      {"builtins.fetchTree", "github:NixOS/nixpkgs", "github:NixOS/nixpkgs"},
		"treepath":    {"builtins.fetchTree", "path:/etc", "path:/etc"},
		"flake":       {"builtins.getFlake", "builtins.getFlake", "builtins.getFlake"},
		"merc":        {"builtins.fetchMercurial", "builtins.fetchMercurial", "builtins.fetchMercurial"},
		"path":        {"/tmp/machines/src", "/tmp", "/tmp/machines/src"},
		"interp":      {"/etc/hostname", "/etc", "/etc/hostname"},
		"dir":         {"/etc", "/etc", "/etc"},
		"storepath":   {"builtins.storePath", "builtins.storePath", "builtins.storePath"},
		"storeimport": {"/nix/store/8vhpjdc8y2rfwdv5xq42ck0kn53xzn6g-nothere", "/nix/store/8vhpjdc8y2rfwdv5xq42ck0kn53xzn6g-nothere", "/nix/store/8vhpjdc8y2rfwdv5xq42ck0kn53xzn6g-nothere"},
	} {
		for i, version := range []string{"2.8", "2.26", "2.34"} {
			what, ok := IsPurity(recorded(t, version, name))
			if !ok || what != want[i] {
				t.Errorf("%s of %s: %q, %v, want %q", name, version, what, ok, want[i])
			}
		}
	}
}

func TestIsPurityKnowsMessagesThatWereNotRecorded(t *testing.T) {
	for message, want := range map[string]string{
		"in pure evaluation mode, 'fetchTree' doesn't fetch unlocked input 'path:/etc'":                               "path:/etc",
		"access to absolute path '/etc' is forbidden in pure evaluation mode (use '--impure' to override)":            "/etc",
		"cannot update unlocked flake input 'nixpkgs' in pure mode":                                                   "nixpkgs",
		"cannot call 'getFlake' on unlocked flake reference 'nixpkgs', at «none»:0 (use --impure to override)":        "builtins.getFlake",
		"cannot look up '<nixpkgs/nixos>' in pure evaluation mode (use '--impure' to override)":                       "<nixpkgs/nixos>",
		"in pure evaluation mode, 'fetchTarball' requires a 'sha256' argument":                                        "builtins.fetchTarball",
		"access to absolute path '/home/x/y' is forbidden in pure eval mode (use '--impure' to override) and more of": "/home/x/y",
	} {
		if what, ok := IsPurity(&EvalError{Trace: "error: " + message}); !ok || what != want {
			t.Errorf("%s: %q, %v", message, what, ok)
		}
	}
}

func TestIsPurityIsFalseForOtherFaults(t *testing.T) {
	for _, version := range []string{"2.8", "2.26", "2.34"} {
		for _, name := range []string{"fail", "syntax", "module", "exec", "undef", "tracefirst"} {
			if what, ok := IsPurity(recorded(t, version, name)); ok {
				t.Errorf("%s of %s: %q", name, version, what)
			}
		}
	}
	if _, ok := IsPurity(errors.New("access to absolute path '/x' is forbidden in pure eval mode")); ok {
		t.Error("not an evaluation at all")
	}
}

func FuzzEvalError(f *testing.F) {
	for _, name := range []string{"2.8/fail.txt", "2.26/fail.txt", "2.26/module.txt", "2.8/exec.txt"} {
		b, err := os.ReadFile("testdata/eval/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, trace string) {
		e := &EvalError{Trace: trace}
		if e.Summary() == "" && strings.Contains(trace, "error: x") {
			t.Error("no summary")
		}
		for _, l := range append(e.UserTrace(recordedSource, "/root"), e.Summary()) {
			if strings.ContainsAny(l, "\x1b\x00\r") {
				t.Errorf("%q reaches the terminal", l)
			}
		}
	})
}

func TestWhatNixSaysOfItsOwnEndIsNotTold(t *testing.T) {
	useFakeNix(t, "", "building 'x'\nerror (ignored): error: interrupted by the user\nerror: interrupted by the user\n", 1)
	var log bytes.Buffer
	_, err := new(Client).Eval(t.Context(), Expression{Text: "1", Log: &log})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if log.String() != "building 'x'\n" {
		t.Errorf("told is %q", log.String())
	}
}

// TestOptionsTellWhereNoFileOfTheUsersDoes locks what is left of an infinite recursion among options, in the order of either kind of Nix.
func TestOptionsTellWhereNoFileOfTheUsersDoes(t *testing.T) {
	for title, trace := range map[string]string{
		"2.8": "error: infinite recursion encountered\n\n       at /nix/store/x-source/lib/modules.nix:1:2:\n\n" +
			"       … while evaluating the option `b':\n\n       … while evaluating the option `b':\n\n       … while evaluating the option `a':\n",
		"later": "error:\n       … while evaluating the option `a':\n\n       … while evaluating the option `b':\n\n" +
			"       error: infinite recursion encountered\n",
	} {
		t.Run(title, func(t *testing.T) {
			got := (&EvalError{Trace: trace}).OptionTrace()
			want := []string{"… while evaluating the option `b':", "… while evaluating the option `a':"}
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}
