package agent

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// loginShells are the shells that a target's user may have, as argv before the command line.
func loginShells(t *testing.T) map[string][]string {
	t.Helper()
	shells := map[string][]string{}
	for name, argv := range map[string][]string{
		"sh": {"/bin/sh", "-c"}, "dash": {"dash", "-c"}, "bash": {"bash", "-c"}, "busybox": {"busybox", "sh", "-c"},
		"zsh": {"zsh", "-c"}, "fish": {"fish", "-c"}, "ksh": {"ksh", "-c"}, "mksh": {"mksh", "-c"},
	} {
		if _, err := exec.LookPath(argv[0]); err == nil {
			shells[name] = argv
		}
	}
	if len(shells) < 3 {
		t.Fatalf("there are only %d shells to try", len(shells))
	}
	t.Logf("shells: %d", len(shells))
	return shells
}

// placeAt is a place below a test's own folder, which is the top, with scripts that come before the machine's programs.
func placeAt(folder, bin string) place {
	own, _, _ := strings.Cut(strings.TrimPrefix(folder, os.TempDir()+"/"), "/")
	return place{folder: folder, path: bin + ":/usr/bin:/bin:/usr/sbin:/sbin", owner: "0", top: filepath.Join(os.TempDir(), own)}
}

// nobodys is a place as it looks in a user namespace in which whoever runs the tests is nobody.
func (at place) nobodys() place {
	at.owner = "65534"
	return at
}

// asRoot runs argv as root of a user namespace, if the tests are not root's.
func asRoot(argv ...string) []string {
	if os.Geteuid() == 0 {
		return argv
	}
	return append([]string{"unshare", "--user", "--map-root-user"}, argv...)
}

// newProgram is a script that plays the agent, for the machine of the fake uname.
func newProgram(machine string) (Program, []byte) {
	text := fmt.Sprintf("#!/bin/sh\necho \"%s\"\nfor a; do echo \"<$a>\"; done\necho for %s\ncat\n", Magic, machine)
	sum := sha256.Sum256([]byte(text))
	return Program{Machine: machine, Hash: hex.EncodeToString(sum[:])}, []byte(text)
}

func pack(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// scripts puts small sh scripts into a folder for PATH.
func scripts(t *testing.T, texts map[string]string) (bin string) {
	t.Helper()
	bin = t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// far is a command line that runs on a fake target.
type far struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

func runFar(t *testing.T, bin string, argv ...string) *far {
	t.Helper()
	f := &far{cmd: exec.CommandContext(soon(t), argv[0], argv[1:]...)}
	f.cmd.Env = []string{"PATH=" + bin + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + t.TempDir()}
	f.cmd.Stderr = &f.stderr
	f.cmd.WaitDelay = time.Second
	var err error
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.out = bufio.NewReader(out)
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.cmd.Process.Kill() })
	return f
}

func (f *far) line(t *testing.T) string {
	t.Helper()
	line, err := f.out.ReadString('\n')
	if err != nil {
		t.Fatalf("read a line: %v after %q\n%s", err, line, f.stderr.String())
	}
	return strings.TrimSuffix(line, "\n")
}

// rest ends the input and gives what is left of the output and the exit status.
func (f *far) rest(t *testing.T) (string, int) {
	t.Helper()
	_ = f.in.Close()
	out, err := io.ReadAll(f.out)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.cmd.Wait()
	return string(out), f.cmd.ProcessState.ExitCode()
}

func (f *far) send(t *testing.T, packed []byte) {
	t.Helper()
	if _, err := fmt.Fprintf(f.in, "%d\n", len(packed)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.in.Write(packed); err != nil {
		t.Fatal(err)
	}
}

// What the agent says once it runs.
func (f *far) expectAgent(t *testing.T, args []string, machine string) {
	t.Helper()
	want := []string{Magic, "<serve>"}
	for _, a := range args {
		want = append(want, "<"+a+">")
	}
	for _, w := range append(want, "for "+machine) {
		if got := f.line(t); got != w {
			t.Fatalf("the agent says %q instead of %q\n%s", got, w, f.stderr.String())
		}
	}
	// Whatever stands behind the agent on standard input is the agent's, to the byte.
	if _, err := io.WriteString(f.in, "frames\x00"); err != nil {
		t.Fatal(err)
	}
	if out, status := f.rest(t); out != "frames\x00" || status != 0 {
		t.Fatalf("the agent got %q and ended with %d\n%s", out, status, f.stderr.String())
	}
}

func TestBootstrapInstallsTheAgentInEveryLoginShell(t *testing.T) {
	args := []string{"--as", identity("alice@här e"), "--session", "s1", "--lock"}
	const marker = "ferry-AB's question: "
	uname := "case $1 in -m) echo x86_64;; *) exec /bin/uname \"$@\";; esac"
	// Everything must reach the command below elevate as it was written.
	elevates := map[string]struct {
		argv   []string
		script string // what elevate is there
		called string
	}{
		"root": {[]string{"sudo"}, "", ""},
		"sudo": {[]string{"sudo", "-u", "root"}, `printf '[%s]' "$1" "$2" "$3" "$4" "$5" >"$0.called"; shift 5; exec "$@"`,
			"[-S][-p][" + marker + "][-u][root]"},
		"doas":      {[]string{"doas"}, `printf '[%s]' "$#" >"$0.called"; exec "$@"`, "[3]"},
		"odd words": {[]string{"odd", "it's", `a\"b`, "$HOME `x` !! ~", "*"}, `printf '[%s]' "$1" "$2" "$3" "$4" >"$0.called"; shift 4; exec "$@"`, `[it's][a\"b][$HOME ` + "`x`" + ` !! ~][*]`},
	}
	for shell, argv := range loginShells(t) {
		for name, elevate := range elevates {
			// A user namespace makes root, or nobody, of whoever runs the tests.
			argv := append([]string{"unshare", "--user"}, argv...)
			if elevate.called == "" {
				argv = slices.Insert(argv, 2, "--map-root-user")
			}
			t.Run(shell+", "+name, func(t *testing.T) {
				t.Parallel()
				bin := scripts(t, map[string]string{"uname": uname})
				if elevate.script != "" {
					bin = scripts(t, map[string]string{"uname": uname, elevate.argv[0]: elevate.script})
				}
				folder := filepath.Join(t.TempDir(), "lib/ferry")
				program, text := newProgram("x86_64")
				other, _ := newProgram("aarch64")
				at := placeAt(folder, bin)
				if elevate.called != "" {
					at = at.nobodys()
				}
				line := commandLine(elevate.argv, marker, bootstrapScript(at, []Program{other, program}, args))

				f := runFar(t, bin, append(slices.Clone(argv), line)...)
				if got := f.line(t); got != bootstrapNeed+"x86_64" {
					t.Fatalf("it says %q\n%s", got, f.stderr.String())
				}
				f.send(t, pack(t, text))
				f.expectAgent(t, args, "x86_64")
				installed := filepath.Join(folder, "agent-"+program.Hash)
				if info, err := os.Stat(installed); err != nil || info.Mode().Perm() != 0o755 {
					t.Errorf("installed as %v, %v", info, err)
				}
				if elevate.called != "" {
					if called, _ := os.ReadFile(filepath.Join(bin, elevate.argv[0]+".called")); string(called) != elevate.called {
						t.Errorf("called as %s", called)
					}
				}

				runFar(t, bin, append(slices.Clone(argv), line)...).expectAgent(t, args, "x86_64")
				if f.stderr.Len() > 0 {
					t.Errorf("it complains: %s", f.stderr.String())
				}
			})
		}
	}
}

// rootShells are what sh may be for root on a target.
var rootShells = [][]string{{"dash", "-c"}, {"bash", "--posix", "-c"}, {"busybox", "sh", "-c"}}

func TestBootstrapReplacesADamagedAgent(t *testing.T) {
	for _, shell := range rootShells {
		for name, damage := range map[string]func(string) error{
			"changed":  func(f string) error { return os.WriteFile(f, []byte("#!/bin/sh\necho evil"), 0o755) },
			"empty":    func(f string) error { return os.WriteFile(f, nil, 0o755) },
			"dangling": func(f string) error { return os.Symlink("nowhere", f) },
		} {
			t.Run(shell[0]+", "+name, func(t *testing.T) {
				folder := t.TempDir()
				program, text := newProgram("x86_64")
				file := filepath.Join(folder, "agent-"+program.Hash)
				if err := damage(file); err != nil {
					t.Fatal(err)
				}
				bin := scripts(t, map[string]string{"uname": "echo x86_64"})
				f := runFar(t, bin, append(asRoot(shell...), bootstrapScript(placeAt(folder, bin), []Program{program}, nil))...)
				if got := f.line(t); got != bootstrapNeed+"x86_64" {
					t.Fatalf("it says %q", got)
				}
				f.send(t, pack(t, text))
				f.expectAgent(t, nil, "x86_64")
				if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, text) {
					t.Errorf("installed %q, %v", got, err)
				}
			})
		}
	}
}

func TestBootstrapKnowsMachinesByAllTheirNames(t *testing.T) {
	var programs []Program
	for _, m := range []string{"x86_64", "i686", "aarch64", "armv7l", "armv6l", "riscv64"} {
		p, _ := newProgram(m)
		programs = append(programs, p)
	}
	for uname, want := range map[string]string{
		"x86_64": bootstrapNeed + "x86_64", "i386": bootstrapNeed + "i686", "i586": bootstrapNeed + "i686", "aarch64": bootstrapNeed + "aarch64",
		"arm64": bootstrapNeed + "aarch64", "armv7l": bootstrapNeed + "armv7l", "armv8l": bootstrapNeed + "armv7l", "armv6l": bootstrapNeed + "armv6l",
		"riscv64": bootstrapNeed + "riscv64", "sparc64": bootstrapMachine + "sparc64", "armv5tel": bootstrapMachine + "armv5tel",
	} {
		bin := scripts(t, map[string]string{"uname": "echo " + uname})
		folder := t.TempDir()
		f := runFar(t, bin, asRoot("/bin/sh", "-c", bootstrapScript(placeAt(folder, bin), programs, nil))...)
		if got := f.line(t); got != want {
			t.Errorf("on %s it says %q", uname, got)
		}
		if _, status := f.rest(t); status == 0 {
			t.Errorf("on %s it went well without an agent", uname)
		}
		if left, _ := os.ReadDir(folder); len(left) != 0 {
			t.Errorf("on %s it left %v", uname, left)
		}
	}
}

func TestBootstrapFails(t *testing.T) {
	program, text := newProgram("x86_64")
	packed := pack(t, text)
	for name, c := range map[string]struct {
		sent string // after the request for the agent
		says string
	}{
		"when the connection ends at once":         {"", bootstrapFailed + "to write the agent"},
		"when it ends in the middle":               {fmt.Sprintf("%d\n%s", len(packed), packed[:20]), bootstrapFailed + "to write the agent"},
		"when something else is sent":              {"4\nabcd", bootstrapFailed + "to write the agent"},
		"when the length is none":                  {"$(reboot)\n", bootstrapFailed + "to write the agent"},
		"when it is the agent of a different hash": {fmt.Sprintf("%d\n%s", len(pack(t, []byte("x"))), pack(t, []byte("x"))), bootstrapFailed + "to write the agent"},
	} {
		for _, shell := range rootShells {
			t.Run(name+", "+shell[0], func(t *testing.T) {
				folder := t.TempDir()
				bin := scripts(t, map[string]string{"uname": "echo x86_64"})
				f := runFar(t, bin, append(asRoot(shell...), bootstrapScript(placeAt(folder, bin), []Program{program}, nil))...)
				f.line(t)
				if _, err := io.WriteString(f.in, c.sent); err != nil {
					t.Fatal(err)
				}
				out, status := f.rest(t)
				if !strings.Contains(out, c.says) || status != 74 {
					t.Errorf("it says %q and ends with %d", out, status)
				}
				if left, _ := os.ReadDir(folder); len(left) != 0 {
					t.Errorf("it left %v", left)
				}
			})
		}
	}
	t.Run("when there is no folder for it", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		bin := scripts(t, map[string]string{"uname": "echo x86_64"})
		f := runFar(t, bin, asRoot("/bin/sh", "-c", bootstrapScript(placeAt(file+"/ferry", bin), []Program{program}, nil))...)
		if got := f.line(t); !strings.HasPrefix(got, bootstrapFailed+"to make "+file) {
			t.Errorf("it says %q", got)
		}
		if _, status := f.rest(t); status != 73 {
			t.Errorf("it ends with %d", status)
		}
	})
}

// A disk that is full is told from everything else, and the next try on a disk with room works.
func TestBootstrapOnAFullDisk(t *testing.T) {
	program, _ := newProgram("x86_64")
	random := make([]byte, 256<<10)
	for i := range random {
		random[i] = byte(i * i >> 3)
	}
	folder, bin := t.TempDir(), scripts(t, map[string]string{"uname": "echo x86_64"})
	argv := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		argv = append(argv, "--map-root-user")
	}
	argv = append(argv, "/bin/sh", "-c", `mount -t tmpfs -o size=64k,mode=755 none "$1" && sh -c "$2"; s=$?; ls -A "$1"; exit $s`, "sh",
		folder, bootstrapScript(placeAt(folder, bin), []Program{program}, nil))
	f := runFar(t, bin, argv...)
	if got := f.line(t); got != bootstrapNeed+"x86_64" {
		t.Fatalf("it says %q\n%s", got, f.stderr.String())
	}
	packed := pack(t, random)
	if _, err := fmt.Fprintf(f.in, "%d\n", len(packed)); err != nil {
		t.Fatal(err)
	}
	_, _ = f.in.Write(packed)
	out, status := f.rest(t)
	if out != bootstrapFailed+"to write the agent to "+folder+", is the disk full\n" || status != 74 {
		t.Errorf("it says %q and ends with %d\n%s", out, status, f.stderr.String())
	}
	if !strings.Contains(f.stderr.String(), "No space left on device") {
		t.Errorf("standard error: %q", f.stderr.String())
	}
}

// The whole script stands in sudo's log, and passes through shells that differ in what they do inside quotes.
func TestBootstrapScriptIsOneHarmlessLine(t *testing.T) {
	programs, err := Programs()
	if err != nil {
		t.Fatal(err)
	}
	script := bootstrapScript(installation, programs, []string{"--as", identity("it's \\ me!"), "--lock"})
	if strings.ContainsAny(script, "'\"\\!\n`") {
		t.Errorf("%q", script)
	}
	if len(script) > 4<<10 {
		t.Errorf("it has %d bytes", len(script))
	}
}

func TestEmbeddedAgentsAreWhatTheIndexSays(t *testing.T) {
	programs, err := Programs()
	if err != nil {
		t.Fatal(err)
	}
	if len(programs) != 6 {
		t.Errorf("%d agents", len(programs))
	}
	for _, p := range programs {
		text, err := p.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != p.Hash {
			t.Errorf("%s has another hash", p.Machine)
		}
		if packed, err := p.Compressed(); err != nil || int64(len(packed)) != p.size || len(packed) > 3<<20 {
			t.Errorf("%s: %d bytes packed, %v", p.Machine, len(packed), err)
		}
	}
	for system, machine := range map[string]string{"aarch64-linux": "aarch64", "x86_64-linux": "x86_64"} {
		if p, err := ProgramFor(system); err != nil || p.Machine != machine {
			t.Errorf("for %s: %v, %v", system, p.Machine, err)
		}
	}
	if _, err := ProgramFor("mips64el-linux"); err == nil {
		t.Error("there is an agent for mips64el-linux")
	}
}
