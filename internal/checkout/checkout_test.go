package checkout

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/run"
)

// TestADiffStartsNothing compares folders whose attributes ask for programs, under an environment that names some.
func TestADiffStartsNothing(t *testing.T) {
	started := filepath.Join(t.TempDir(), "started")
	program := filepath.Join(t.TempDir(), "program")
	a, b, home := t.TempDir(), t.TempDir(), t.TempDir()
	for file, text := range map[string]string{
		program:               "#!/bin/sh\necho >>" + run.Quote(started) + "\n",
		a + "/x":              "one\n",
		b + "/x":              "two\n",
		b + "/.gitattributes": "* diff=x filter=x\n", a + "/.gitattributes": "* diff=x filter=x\n",
		home + "/.gitconfig": "[diff]\n\texternal = " + program + "\n[diff \"x\"]\n\ttextconv = " + program + "\n\tcommand = " + program + "\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("GIT_EXTERNAL_DIFF", program)
	t.Setenv("GIT_PAGER", program)
	t.Setenv("GIT_DIR", filepath.Join(home, "nowhere"))
	var out bytes.Buffer
	if err := Diff(t.Context(), &run.Runner{}, a, b, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "-one\n+two\n") {
		t.Errorf("got %q", out.String())
	}
	if _, err := os.Stat(started); err == nil {
		t.Error("a program was started")
	}
}

// TestOnlySettingsOfStorageAreKept lists what may stay of a repository's configuration, and what must not.
func TestOnlySettingsOfStorageAreKept(t *testing.T) {
	for name, want := range map[string]bool{
		"core.autocrlf": true, "extensions.objectformat": true, "submodule.a.b.url": true, "submodule.x.active": true, "submodule.active": true,
		"core.fsmonitor": false, "core.sshcommand": false, "core.worktree": false, "core.hookspath": false, "core.attributesfile": false,
		"filter.x.clean": false, "extensions.partialclone": false, "extensions.worktreeconfig": false, "submodule.x.update": false,
		"remote.origin.promisor": false, "remote.x.url": false, "include.path": false, "log.showsignature": false, "gpg.program": false,
	} {
		if isStored(name) != want {
			t.Errorf("%s: kept is %v", name, !want)
		}
	}
}
