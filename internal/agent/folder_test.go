package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ownFolder makes a folder /lib/ferry below a new one, with the agent in it, and root's alone.
func ownFolder(t *testing.T, program Program, text []byte) (lib, folder, file string) {
	t.Helper()
	lib = filepath.Join(t.TempDir(), "lib")
	folder = filepath.Join(lib, "ferry")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(folder, "agent-"+program.Hash)
	if err := os.WriteFile(file, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return lib, folder, file
}

// somebody is nobody of this machine's.
const somebody = 4242

// TestAFolderThatIsNotRootsAloneIsRefused locks that no agent is put, or run from, where somebody else could change it after it
// has been looked at: neither as root nor as the login user.
func TestAFolderThatIsNotRootsAloneIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files away: run it as root")
	}
	program, text := newProgram("x86_64")
	for name, c := range map[string]struct {
		spoil func(lib, folder string) error
		says  func(lib, folder string) string
	}{
		"somebody's":     {func(_, f string) error { return os.Chown(f, somebody, 0) }, func(_, f string) string { return "4242:755:UNKNOWN:" + f }},
		"the group's":    {func(_, f string) error { return os.Chmod(f, 0o775) }, func(_, f string) string { return "0:775:root:" + f }},
		"everybody's":    {func(_, f string) error { return os.Chmod(f, 0o757) }, func(_, f string) string { return "0:757:root:" + f }},
		"sticky":         {func(_, f string) error { return os.Chmod(f, 0o777|os.ModeSticky) }, func(_, f string) string { return "0:1777:root:" + f }},
		"below such one": {func(l, _ string) error { return os.Chown(l, somebody, 0) }, func(l, _ string) string { return "4242:755:UNKNOWN:" + l }},
		"below an open":  {func(l, _ string) error { return os.Chmod(l, 0o777) }, func(l, _ string) string { return "0:777:root:" + l }},
		// What DynamicUser makes of StateDirectory.
		"a link to a private one": {func(l, f string) error {
			private := filepath.Join(l, "private/ferry")
			if err := os.Mkdir(filepath.Dir(private), 0o700); err != nil {
				return err
			}
			if err := os.Rename(f, private); err != nil {
				return err
			}
			if err := os.Chown(private, somebody, somebody); err != nil {
				return err
			}
			return os.Symlink("private/ferry", f)
		}, func(l, _ string) string { return "4242:755:UNKNOWN:" + l + "/private/ferry" }},
	} {
		for _, shell := range rootShells {
			t.Run(name+", "+shell[0], func(t *testing.T) {
				lib, folder, _ := ownFolder(t, program, text)
				if err := c.spoil(lib, folder); err != nil {
					t.Fatal(err)
				}
				bin := scripts(t, map[string]string{"uname": "echo x86_64"})
				at := placeAt(folder, bin)
				f := runFar(t, bin, append(append([]string(nil), shell...), bootstrapScript(at, []Program{program}, nil))...)
				if got, want := f.line(t), bootstrapUnsafe+c.says(lib, folder); got != want {
					t.Errorf("it says %q, not %q", got, want)
				}
				if out, status := f.rest(t); out != "" || status != 77 {
					t.Errorf("it goes on with %q and ends with %d", out, status)
				}
				f = runFar(t, bin, append(append([]string(nil), shell...), installedScript(at, []Program{program}, nil)+"; echo not run")...)
				if got := f.line(t); got != "not run" {
					t.Errorf("as the login user it says %q", got)
				}
				_, _ = f.rest(t)
			})
		}
	}
}

// TestAnAgentThatSomebodyElseMayChangeIsReplaced locks the same for the file, where the folder was somebody's before.
func TestAnAgentThatSomebodyElseMayChangeIsReplaced(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files away: run it as root")
	}
	program, text := newProgram("x86_64")
	for name, spoil := range map[string]func(string) error{
		"somebody's": func(f string) error { return os.Chown(f, somebody, 0) },
		"open":       func(f string) error { return os.Chmod(f, 0o777) },
		"a link": func(f string) error {
			other := filepath.Join(filepath.Dir(filepath.Dir(f)), "other")
			if err := os.Rename(f, other); err != nil {
				return err
			}
			return os.Symlink(other, f)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, folder, file := ownFolder(t, program, text)
			if err := spoil(file); err != nil {
				t.Fatal(err)
			}
			bin := scripts(t, map[string]string{"uname": "echo x86_64"})
			at := placeAt(folder, bin)
			f := runFar(t, bin, "/bin/sh", "-c", installedScript(at, []Program{program}, nil)+"; echo not run")
			if got := f.line(t); got != "not run" {
				t.Errorf("as the login user it says %q", got)
			}
			_, _ = f.rest(t)
			f = runFar(t, bin, "/bin/sh", "-c", bootstrapScript(at, []Program{program}, nil))
			if got := f.line(t); got != bootstrapNeed+"x86_64" {
				t.Fatalf("it says %q", got)
			}
			f.send(t, pack(t, text))
			f.expectAgent(t, nil, "x86_64")
		})
	}
}

// TestNothingOfTheLoginUsersPathRunsAsRoot locks that the programs of the script come from folders that are root's, and the shell
// that elevate is given as well.
func TestNothingOfTheLoginUsersPathRunsAsRoot(t *testing.T) {
	program, text := newProgram("x86_64")
	ours := scripts(t, map[string]string{"uname": "echo x86_64"})
	evil := map[string]string{"id": "echo 1000", "sudo": `shift 3; : >"$0.called"; exec "$@"`}
	for _, name := range []string{"uname", "sha256sum", "cut", "stat", "grep", "mkdir", "mktemp", "head", "gzip", "chmod", "mv", "rm", "cat"} {
		evil[name] = `echo "$0" >>"${0%/*}/ran"; echo evil`
	}
	theirs := scripts(t, evil)
	at := placeAt(filepath.Join(t.TempDir(), "ferry"), ours)
	line := commandLine([]string{"sudo"}, "marker", bootstrapScript(at, []Program{program}, nil))
	// The login shell itself is the user's own; a sh that stands in their way is not to be what sudo gets.
	if err := os.WriteFile(filepath.Join(theirs, "sh"), []byte("#!/bin/sh\n[ -e \"${0%/*}/sudo.called\" ] && echo \"$0\" >>\"${0%/*}/ran\"\nexec /bin/sh \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := runFar(t, theirs, asRoot("/bin/sh", "-c", line)...)
	if got := f.line(t); got != bootstrapNeed+"x86_64" {
		t.Fatalf("it says %q", got)
	}
	f.send(t, pack(t, text))
	for f.line(t) != "for x86_64" {
	}
	_, _ = f.rest(t)
	ran, _ := os.ReadFile(filepath.Join(theirs, "ran"))
	// What plays the agent has the same PATH.
	if len(ran) > 0 {
		t.Errorf("these ran:\n%s", ran)
	}
	if _, err := os.Stat(filepath.Join(theirs, "sudo.called")); err != nil {
		t.Error(err)
	}
}

// TestAFileSystemThatRunsNothingIsSaid mounts the folder noexec.
func TestAFileSystemThatRunsNothingIsSaid(t *testing.T) {
	program, text := newProgram("x86_64")
	folder, bin := t.TempDir(), scripts(t, map[string]string{"uname": "echo x86_64"})
	for _, shell := range rootShells {
		argv := []string{"unshare", "--mount"}
		if os.Geteuid() != 0 {
			argv = append(argv, "--map-root-user")
		}
		argv = append(argv, "/bin/sh", "-c", `mount -t tmpfs -o mode=755,noexec none "$1" && shift && "$@"`, "sh", folder)
		f := runFar(t, bin, append(append(argv, shell...), bootstrapScript(placeAt(folder, bin), []Program{program}, nil))...)
		if got := f.line(t); got != bootstrapNeed+"x86_64" {
			t.Fatalf("%s says %q\n%s", shell[0], got, f.stderr.String())
		}
		f.send(t, pack(t, text))
		// busybox looks at the file's mode only: what it says when it fails is told by the status.
		if out, status := f.rest(t); status != cannotExecute || shell[0] != "busybox" && out != bootstrapNoExec+folder+"\n" {
			t.Errorf("%s says %q and ends with %d\n%s", shell[0], out, status, f.stderr.String())
		}
	}
}

// TestAFolderErrorNamesItAndWhatToDo reads what the scripts say.
func TestAFolderErrorNamesItAndWhatToDo(t *testing.T) {
	for said, want := range map[string][2]string{
		"998:755:ferry:/var/lib/ferry":          {"/var/lib/ferry belongs to ferry", "StateDirectory=ferry"},
		"61:755:UNKNOWN:/var/lib/private/ferry": {"/var/lib/private/ferry belongs to 61", "StateDirectory=ferry"},
		"0:1777:root:/var/lib/ferry":            {"others than root may write to /var/lib/ferry (mode 1777)", "chmod go-w /var/lib/ferry"},
		"1000:755:alice:/var":                   {"/var belongs to alice", "chown root /var"},
		"unknown:::/var/lib/ferry":              {"whose folder /var/lib/ferry is", ""},
		"1000:755:\x1b[31mal:/var/a b;c":        {"belongs to al", "'/var/a b;c'"},
		"\x1b[31m":                              {"", ""},
	} {
		e := newFolderError(said)
		if hints := strings.Join(e.Hints(), " "); !strings.Contains(e.Error(), want[0]) || !strings.Contains(hints, want[1]) || strings.Contains(e.Error()+hints, "\x1b") {
			t.Errorf("%q: %v; %s", said, e, hints)
		}
	}
	e := &FolderError{Folder: Folder, NoExec: true}
	if text := fmt.Sprint(e, e.Hints()); !strings.Contains(text, "noexec") || !strings.Contains(text, "mount -o bind,exec") {
		t.Error(text)
	}
}
