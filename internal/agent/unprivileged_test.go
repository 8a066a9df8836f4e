package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAnInstalledAgentRunsWithoutRoot finds it, or goes on to become root, in every login shell.
func TestAnInstalledAgentRunsWithoutRoot(t *testing.T) {
	args := []string{"--as", identity("alice@här e"), "--session", "s1"}
	const marker = "ferry-AB's question: "
	for shell, argv := range loginShells(t) {
		// A user namespace makes nobody of whoever runs the tests.
		argv := append([]string{"unshare", "--user"}, argv...)
		for name, c := range map[string]struct {
			install func(file string, text []byte) error
			root    bool // it has to be had
		}{
			"installed": {func(f string, text []byte) error { return os.WriteFile(f, text, 0o755) }, false},
			"missing":   {func(string, []byte) error { return nil }, true},
			"changed":   {func(f string, _ []byte) error { return os.WriteFile(f, []byte("#!/bin/sh\necho evil\n"), 0o755) }, true},
			"unusable":  {func(f string, text []byte) error { return os.WriteFile(f, text, 0o644) }, true},
		} {
			t.Run(shell+", "+name, func(t *testing.T) {
				t.Parallel()
				folder := t.TempDir()
				program, text := newProgram("x86_64")
				other, _ := newProgram("aarch64")
				programs := []Program{other, program}
				if err := c.install(filepath.Join(folder, "agent-"+program.Hash), text); err != nil {
					t.Fatal(err)
				}
				bin := scripts(t, map[string]string{
					"uname": "case $1 in -m) echo x86_64;; *) exec /bin/uname \"$@\";; esac",
					"sudo":  `printf '[%s]' "$1" "$2" "$3" >"$0.called"; shift 3; exec "$@"`,
				})
				at := placeAt(folder, bin).nobodys()
				line := commandLineTrying(installedScript(at, programs, args), []string{"sudo"}, marker, bootstrapScript(at, programs, args))
				f := runFar(t, bin, append(slices.Clone(argv), line)...)
				called := ""
				if c.root {
					// What is there and is no agent with its hash is not run, but replaced. One that may only not be run is left.
					if name != "unusable" {
						if got := f.line(t); got != bootstrapNeed+"x86_64" {
							t.Fatalf("it says %q\n%s", got, f.stderr.String())
						}
						f.send(t, pack(t, text))
					}
					called = "[-S][-p][" + marker + "]"
				}
				if name == "unusable" {
					_, _ = f.rest(t)
				} else {
					f.expectAgent(t, args, "x86_64")
				}
				if got, _ := os.ReadFile(filepath.Join(bin, "sudo.called")); string(got) != called {
					t.Errorf("sudo was called as %q, want %q", got, called)
				}
			})
		}
	}
}

// TestInstalledScriptIsOneHarmlessLine is TestBootstrapScriptIsOneHarmlessLine for the other script.
func TestInstalledScriptIsOneHarmlessLine(t *testing.T) {
	programs, err := Programs()
	if err != nil {
		t.Fatal(err)
	}
	script := installedScript(installation, programs, []string{"--as", identity("it's \\ me!")})
	if strings.ContainsAny(script, "'\"\\!\n`") || len(script) > 4<<10 {
		t.Errorf("%d bytes: %q", len(script), script)
	}
}

// TestGenerationsAreCleaned asks a target that says odd things.
func TestGenerationsAreCleaned(t *testing.T) {
	got, err := open(t, "serves").Generations(soon(t))
	if err != nil || len(got.Generations) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if g := got.Generations[0]; g != (Generation{Number: 7, Version: "24.05", Toplevel: string(pathA)}) || got.Current != "" || got.Booted != string(pathB) {
		t.Errorf("%+v", got)
	}
}

// TestAJournalEntryIsCleaned goes through what a target may claim.
func TestAJournalEntryIsCleaned(t *testing.T) {
	e := JournalEntry{
		ID: "a\x1b[31mb", Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), Who: strings.Repeat("ü", 1000), From: "\n", Action: "a\tb",
		Node: "pi", Bundle: "/nix/store/x; reboot", Toplevel: string(pathA), Revision: "-h", Version: "\x07", Outcome: "\x1b[2Jcommitted",
		Before: JournalState{Current: "x", Profile: string(pathB), Generation: -3}, Reason: strings.Repeat("x", 100_000),
	}
	e.Clean()
	if len(e.Who) > maxShort || !strings.HasPrefix(e.Who, "üü") || strings.Contains(e.Who, "\ufffd") || len(e.Reason) > 3000 {
		t.Errorf("%d bytes of who, %d of reason: %q", len(e.Who), len(e.Reason), e.Who)
	}
	e.Who, e.Reason = "", ""
	want := JournalEntry{
		ID: "ab", Time: time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC), From: "?", Action: "a b", Node: "pi", Toplevel: string(pathA), Version: "?",
		Outcome: JournalCommitted, Before: JournalState{Profile: string(pathB)},
	}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
	for text, want := range map[string]string{
		"0123456": "0123456", strings.Repeat("a", 64): strings.Repeat("a", 64), "012345": "", strings.Repeat("a", 65): "", "0123456-dirty": "",
		"--output=x": "", "ABCDEF0": "", "": "",
	} {
		m := Manifest{Revision: text}
		if m.Clean(); m.Revision != want {
			t.Errorf("revision %q becomes %q", text, m.Revision)
		}
	}
}
