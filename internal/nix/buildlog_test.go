package nix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// readLog feeds text to a buildLog and returns it with the states that it told.
func readLog(text string) (*buildLog, []BuildProgress) {
	var states []BuildProgress
	log := newBuildLog(func(p BuildProgress) { states = append(states, p) })
	w := &lineWriter{each: log.line}
	_, _ = w.Write([]byte(text))
	w.end()
	return log, states
}

func TestFailuresInRecordedLogs(t *testing.T) {
	for name, want := range map[string][]string{ // derivation, reason, lines
		"2.8-daemon":       {"bad.drv", "failed with exit code 3", "line 1|line 2|line 3"},
		"2.26-daemon":      {"bad.drv", "failed with exit code 3", "line 1|line 2|line 3"},
		"2.34-daemon":      {"bad.drv", "failed with exit code 3", "line 1|line 2|line 3"},
		"2.8-dependencies": {"bad.drv", "failed with exit code 3", ""},
		"2.34-platform":    {"plat.drv", "this machine is x86_64-linux", ""},
		"2.8-platform":     {"plat.drv", "this machine is x86_64-linux", ""},
		"2.26-platform":    {"plat.drv", "this machine is x86_64-linux", ""},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", "build", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		log, _ := readLog(string(b))
		failed := readFailures(log.errors)
		if len(failed.Derivations) != 1 {
			t.Errorf("%s: %+v", name, failed)
			continue
		}
		d := failed.Derivations[0]
		got := []string{d.Drv.Name(), d.Reason, strings.Join(d.LastLines, "|")}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestFailuresOfAllVersions(t *testing.T) {
	drv := "/nix/store/" + someHash + "-x.drv"
	for what, c := range map[string]struct{ message, reason, platform string }{
		"2.8, exit": {"builder for '" + drv + "' failed with exit code 1", "failed with exit code 1", ""},
		"2.8, signal": {"builder for '" + drv + "' failed due to signal 9 (Killed);\nlast 1 log lines:\n> x\n" +
			"For full logs, run 'nix log " + drv + "'.", "failed due to signal 9 (Killed)", ""},
		"2.8, no output": {"builder for '" + drv + "' failed to produce output path for output 'out' at '/nix/store/x'",
			"failed to produce output path for output 'out' at '/nix/store/x'", ""},
		"2.8, hash": {"hash mismatch in fixed-output derivation '" + drv + "':\n  specified: sha256-A=\n     got:    sha256-B=",
			"hash mismatch in fixed-output derivation:\n  specified: sha256-A=\n     got:    sha256-B=", ""},
		"2.8, feature": {"a 'x86_64-linux' with features {kvm, big} is required to build '" + drv + "', but I am a 'x86_64-linux' with features {kvm}",
			"needs the system features {kvm, big}", ""},
		"2.8, platform": {"a 'aarch64-linux' with features {} is required to build '" + drv + "', but I am a 'x86_64-linux' with features {kvm}",
			"this machine is x86_64-linux", "aarch64-linux"},
		"2.31, exit": {"Cannot build '" + drv + "'.\nReason: builder failed with exit code 3.\nOutput paths:\n  /nix/store/x",
			"failed with exit code 3", ""},
		"2.31, log": {"Cannot build '" + drv + "'.\nReason: builder failed with exit code 3.\nOutput paths:\n  /nix/store/x\nLast 1 log lines:\n> x\nFor full logs, run:\n  nix-store -l x",
			"failed with exit code 3", ""},
		"2.31, platform": {"Cannot build '" + drv + "'.\nReason: required system or feature not available\nRequired system: 'aarch64-linux' with features {}\nCurrent system: 'x86_64-linux' with features {kvm}",
			"this machine is x86_64-linux", "aarch64-linux"},
		"2.31, feature": {"Cannot build '" + drv + "'.\nReason: required system or feature not available\nRequired system: 'x86_64-linux' with features {q}\nCurrent system: 'x86_64-linux' with features {kvm}",
			"required system or feature not available\nRequired system: 'x86_64-linux' with features {q}\nCurrent system: 'x86_64-linux' with features {kvm}", ""},
		"2.34, platform": {"Cannot build '" + drv + "'.\nReason: platform mismatch\nRequired system: 'riscv64-linux'\nCurrent system: 'x86_64-linux'",
			"this machine is x86_64-linux", "riscv64-linux"},
		"2.34, jobs": {"Cannot build '" + drv + "'.\nReason: local builds are disabled (max-jobs = 0)\nHint: set 'max-jobs'",
			"local builds are disabled (max-jobs = 0)\nHint: set 'max-jobs'", ""},
	} {
		failed := readFailures([]string{c.message, "1 dependencies of derivation '" + drv[:40] + "b-y.drv' failed to build"})
		if len(failed.Derivations) != 1 || string(failed.Derivations[0].Drv) != drv || failed.Derivations[0].Reason != c.reason {
			t.Errorf("%s: %+v", what, failed.Derivations)
			continue
		}
		m := failed.Derivations[0].platform
		if (m != nil) != (c.platform != "") || m != nil && m.system != c.platform {
			t.Errorf("%s: platform %+v", what, m)
		}
	}
}

func TestConsequencesAreNotFailures(t *testing.T) {
	drv := "'/nix/store/" + someHash + "-x.drv'"
	for _, message := range []string{
		"1 dependencies of derivation " + drv + " failed to build",
		"Cannot build " + drv + ".\nReason: 1 dependency failed.\nOutput paths:\n  /nix/store/x",
		"Cannot build " + drv + ".\nReason: 2 dependencies failed.",
		"build of " + drv + " failed",
		"build of " + drv + ", " + drv + " failed",
		"Build failed due to failed dependency",
		"some dependencies of " + drv + " are missing",
	} {
		if failed := readFailures([]string{message}); len(failed.Derivations) != 0 {
			t.Errorf("%q: %+v", message, failed.Derivations)
		}
	}
}

func TestDiskFullIsRecognised(t *testing.T) {
	for message, want := range map[string]bool{
		"builder for '/nix/store/" + someHash + "-x.drv' failed with exit code 1\nnote: build failure may have been caused by lack of free disk space": true,
		"writing to file: No space left on device":               true,
		"executing SQLite statement: database or disk is full":   true,
		"builder for '/nix/store/x.drv' failed with exit code 1": false,
	} {
		if got := readFailures([]string{message}).DiskFull; got != want {
			t.Errorf("%q: %v", message, got)
		}
	}
}

func TestProgressCountsFetchedBytes(t *testing.T) {
	_, states := readLog(`@nix {"action":"start","id":1,"level":0,"text":"","type":103}
@nix {"action":"result","fields":[100,5000],"id":1,"type":106}
@nix {"action":"result","fields":[101,900],"id":1,"type":106}
@nix {"action":"start","fields":["/nix/store/x","",""],"id":2,"level":3,"text":"","type":100}
@nix {"action":"result","fields":[1000,3000,0,0],"id":2,"type":105}
@nix {"action":"start","fields":["/nix/store/y","",""],"id":3,"level":3,"text":"","type":100}
@nix {"action":"result","fields":[500,2000,0,0],"id":3,"type":105}
@nix {"action":"result","fields":[3000,3000,0,0],"id":2,"type":105}
@nix {"action":"stop","id":2}
@nix {"action":"result","fields":[600,2000,0,0],"id":3,"type":105}
`)
	var got []string
	for _, s := range states {
		got = append(got, fmt.Sprintf("%d/%d", s.FetchedBytes, s.FetchBytes))
	}
	if want := "1000/5000 1500/5000 3500/5000 3600/5000"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestProgressPassesOnWhatIsForPeople(t *testing.T) {
	_, states := readLog("root@builder: Permission denied\x1b[K\n\n" + `@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m ignoring it"}
@nix {"action":"msg","level":3,"msg":"this derivation will be built:"}
@nix {"action":"msg","level":0,"msg":"cannot build on 'ssh://b': no route"}
@nix {"action":"frobnicate","id":"not a number"}
@nix {"action":"start","type":4711,"id":7,"fields":[{"a":[]}]}
@nix not JSON
`)
	var got []string
	for _, s := range states {
		got = append(got, s.Message)
	}
	want := []string{"root@builder: Permission denied", "warning: ignoring it", "cannot build on 'ssh://b': no route"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProgressExpectsWhatWasAnnounced(t *testing.T) {
	start := `@nix {"action":"start","id":1,"type":104}` + "\n"
	announced := `@nix {"action":"msg","level":3,"msg":"this derivation will be built:"}
@nix {"action":"msg","level":3,"msg":"  /nix/store/` + someHash + `-x.drv"}
`
	for what, c := range map[string]struct{ text, want string }{
		"nothing announced": {start + `@nix {"action":"result","fields":[1,4,1,1],"id":1,"type":105}`, "1 of 4, 1 failed"},
		"one too many":      {announced + start + `@nix {"action":"result","fields":[1,2,0,0],"id":1,"type":105}`, "1 of 1, 0 failed"},
		"more in the end":   {announced + start + `@nix {"action":"result","fields":[2,3,0,1],"id":1,"type":105}`, "2 of 3, 1 failed"},
	} {
		_, states := readLog(c.text)
		last := states[len(states)-1]
		if got := fmt.Sprintf("%d of %d, %d failed", last.Done, last.Expected, last.Failed); got != c.want {
			t.Errorf("%s: got %s, want %s", what, got, c.want)
		}
	}
}

func TestPlanOfAllVersions(t *testing.T) {
	a, b := "/nix/store/"+someHash+"-a", "/nix/store/"+someHash+"-b.drv"
	for what, c := range map[string]struct {
		text          string
		fetch, unpack uint64
	}{
		"2.8":  {"this derivation will be built:\n  " + b + "\nthese 2 paths will be fetched (0.50 MiB download, 1.25 MiB unpacked):\n  " + a + "\n  " + a + "\n", 1 << 19, 5 << 18},
		"2.34": {"these 1 derivations will be built:\n  " + b + "\nthis path will be fetched (0.1 KiB download, 2.0 GiB unpacked):\n  " + a + "\n", 102, 2 << 30},
	} {
		var p planReader
		w := &lineWriter{each: p.line}
		_, _ = w.Write([]byte("warning: something\n  " + a + "\n" + c.text + "warning: x\n  " + a + "\ndon't know how to build these paths (may be caused by read-only store access):\n  " + a))
		w.end()
		if len(p.Build) != 1 || string(p.Build[0]) != b || string(p.Fetch[0]) != a || p.FetchBytes != c.fetch || p.UnpackedBytes != c.unpack || len(p.Unknown) != 1 {
			t.Errorf("%s: %+v", what, p.Plan)
		}
	}
}

func TestLineWriterCutsLines(t *testing.T) {
	var got []string
	w := &lineWriter{each: func(l string) { got = append(got, l) }}
	for _, s := range []string{"a", "b\nc\n\n", "d", "", "e"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
	w.end()
	w.end()
	if want := []string{"ab", "c", "", "de"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = nil
	for range 3 * maxLogLine / 1000 {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1000))
	}
	_, _ = w.Write([]byte("\nnext\n"))
	if len(got) != 2 || len(got[0]) != maxLogLine || got[1] != "next" {
		t.Errorf("%d lines, the first of %d bytes", len(got), len(got[0]))
	}
}

func TestSettingsOfAnotherShapeAreAnError(t *testing.T) {
	full := map[string]any{"system": "x", "extra-platforms": []string{}, "system-features": []string{}, "builders": "", "max-jobs": 1, "substituters": []string{}}
	for what, change := range map[string]func(map[string]any){
		"missing":    func(m map[string]any) { delete(m, "builders") },
		"wrong type": func(m map[string]any) { m["max-jobs"] = "auto" },
	} {
		settings := map[string]any{}
		for name, value := range full {
			settings[name] = value
		}
		change(settings)
		all := map[string]any{}
		for name, value := range settings {
			all[name] = map[string]any{"value": value}
		}
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := parseSettings(b); err == nil {
			t.Errorf("%s: %+v", what, s)
		}
	}
}

func FuzzBuildLog(f *testing.F) {
	for _, name := range []string{"2.8-daemon", "2.26-daemon", "2.8-dependencies"} {
		b, err := os.ReadFile(filepath.Join("testdata", "build", name+".txt"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	start := `@nix {"action":"start","fields":["/nix/store/` + someHash + `-a.drv"],"id":1,"type":105}` + "\n"
	f.Add(start + start + `@nix {"action":"stop","id":1}` + "\n" + start)
	f.Fuzz(func(t *testing.T, text string) {
		log, states := readLog(text)
		for _, s := range states {
			for _, shown := range append(s.Running, s.Line, s.Builder, s.Message) {
				if strings.ContainsAny(shown, "\x1b\x00\r\n") {
					t.Errorf("%q reaches the terminal", shown)
				}
			}
			if s.FetchedBytes > s.FetchBytes {
				t.Errorf("%d of %d bytes", s.FetchedBytes, s.FetchBytes)
			}
		}
		for _, d := range readFailures(log.errors).Derivations {
			if strings.ContainsAny(d.Reason+strings.Join(d.LastLines, ""), "\x1b\x00\r") {
				t.Errorf("%+v reaches the terminal", d)
			}
		}
	})
}
