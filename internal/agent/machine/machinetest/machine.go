// Package machinetest makes machines for tests: a folder that stands for /, with the files that a test wants there. No program imports it.
package machinetest

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ferry/internal/agent/machine"
)

// Machine is a folder that stands for the root of a target.
type Machine struct {
	T *testing.T
	machine.Root
}

// New is a machine on which there is nothing.
func New(t *testing.T) *Machine {
	t.Helper()
	return &Machine{T: t, Root: machine.Root{Dir: t.TempDir()}}
}

// Write makes a file, and the folders above it.
func (m *Machine) Write(name, text string) {
	m.T.Helper()
	file := m.Path(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		m.T.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		m.T.Fatal(err)
	}
}

// Program makes a file that can be run.
func (m *Machine) Program(name, text string) {
	m.T.Helper()
	m.Write(name, text)
	if err := os.Chmod(m.Path(name), 0o755); err != nil {
		m.T.Fatal(err)
	}
}

// Link makes a symbolic link, and the folders above it.
func (m *Machine) Link(to, name string) {
	m.T.Helper()
	if err := os.MkdirAll(filepath.Dir(m.Path(name)), 0o755); err != nil {
		m.T.Fatal(err)
	}
	if err := os.Symlink(to, m.Path(name)); err != nil {
		m.T.Fatal(err)
	}
}

// Read is the content of a file; "" if it is not there.
func (m *Machine) Read(name string) string {
	m.T.Helper()
	text, err := os.ReadFile(m.Path(name))
	if err != nil && !os.IsNotExist(err) {
		m.T.Fatal(err)
	}
	return string(text)
}

// AddToStore puts a file where a derivation would and gives its path.
func (m *Machine) AddToStore(name, text string) string {
	m.T.Helper()
	sum := fmt.Sprintf("%x", len(name)*7919+len(text))
	file := fmt.Sprintf("/nix/store/%032s-%s", strings.NewReplacer("e", "h", "t", "v", "o", "w", "u", "y").Replace(sum), name)
	for n := 0; m.Exists(file); n++ {
		file = fmt.Sprintf("/nix/store/%032d-%s", n, name)
	}
	m.Write(file, text)
	return file
}

// AddProcess adds a process to the machine's /proc.
func (m *Machine) AddProcess(pid, parent, uid int, name, cgroup string, environ ...string) {
	m.T.Helper()
	folder := "/proc/" + strconv.Itoa(pid)
	m.Write(folder+"/status", fmt.Sprintf("Name:\t%s\nUmask:\t0022\nPPid:\t%d\nUid:\t%d\t%d\t%d\t%d\n", name, parent, uid, uid, uid, uid))
	m.Write(folder+"/environ", strings.Join(environ, "\x00")+"\x00")
	m.Write(folder+"/cgroup", cgroup+"\n")
	m.Write(folder+"/cmdline", name+"\x00")
}

// Mounted gives the machine these mounts, as lines of a place, a type, and options of the file system.
func (m *Machine) Mounted(lines ...string) {
	m.T.Helper()
	var text strings.Builder
	for _, line := range lines {
		f := strings.Fields(line)
		m.Write(f[0]+"/.keep", "")
		text.WriteString("20 1 0:30 / " + f[0] + " rw,relatime shared:1 - " + f[1] + " source " + strings.Join(append([]string{"rw"}, f[2:]...), ",") + "\n")
	}
	m.Write("/proc/self/mountinfo", text.String())
}

// AliceKey is the key that alice logs in with, as a line of authorized_keys.
const AliceKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa alice@laptop"

// AliceConnection is a variable of her login shell: the connection that she has come by.
const AliceConnection = "SSH_CONNECTION=192.0.2.1 40000 192.0.2.7 22"

// Sudoers is what NixOS writes into /etc/sudoers.
const Sudoers = "# Don't edit this file.\n\n# extraRules\nroot     ALL=(ALL:ALL)    SETENV: ALL\n%wheel  ALL=(ALL:ALL)    SETENV: ALL\n\n"

// NewLogin has alice among its users, as a NixOS made her.
func NewLogin(t *testing.T) *Machine {
	t.Helper()
	m := New(t)
	m.Write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/run/current-system/sw/bin/bash\n")
	m.Write("/etc/group", "root:x:0:\nwheel:x:1:alice\nusers:x:100:\n")
	m.Write("/etc/shadow", "root:!:1::::::\nalice:$6$x$y:1::::::\n")
	// What needs a mode of its own is a copy in /etc, which goes with the system that it is of.
	m.Write("/etc/sudoers", Sudoers)
	m.Write("/etc/ssh/authorized_keys.d/alice", AliceKey+"\n")
	m.Write("/var/lib/nixos/declarative-users", "alice root")
	m.Write("/var/lib/nixos/declarative-groups", "root users wheel")
	return m
}

// NewAncestors is a machine on which alice has logged in over ssh and become root: 240 is the agent.
func NewAncestors(t *testing.T) *Machine {
	t.Helper()
	m := NewLogin(t)
	t.Setenv("PATH", m.Path("/bin")+":"+os.Getenv("PATH"))
	m.AddProcess(1, 0, 0, "systemd", "0::/init.scope")
	m.AddProcess(100, 1, 0, "sshd", "0::/system.slice/sshd.service")
	m.AddProcess(200, 100, 0, "sshd-session", "0::/user.slice/user-1000.slice/session-3.scope")
	m.AddProcess(210, 200, 1000, "sshd-session", "0::/user.slice/user-1000.slice/session-3.scope")
	m.AddProcess(220, 210, 1000, "bash", "0::/user.slice", AliceConnection, "USER=alice", "HOME=/home/alice")
	m.AddProcess(230, 220, 0, "sudo", "0::/user.slice", AliceConnection, "USER=alice")
	m.AddProcess(240, 230, 0, "ferry-agent", "0::/user.slice", "SUDO_USER=alice", "SUDO_UID=1000", "USER=root")
	return m
}

// SystemdBootEntry is an entry as systemd-boot-builder.py writes it, now and in 2017.
func SystemdBootEntry(system string, old bool) string {
	options := "options init=" + system + "/init loglevel=4 root=fstab"
	if old {
		options = "options systemConfig=" + system + " init=" + system + "/init loglevel=4"
	}
	return "title NixOS\nversion Generation 7 NixOS 24.05, Linux Kernel 6.6, Built on 2024-06-01\nlinux /EFI/nixos/kernel.efi\ninitrd /EFI/nixos/initrd.efi\n" +
		options + "\nmachine-id 0123456789abcdef0123456789abcdef\n"
}

// RunsPrograms lets the programs of the machine be found before others, and know its root by FERRY_TEST_ROOT.
func (m *Machine) RunsPrograms() {
	m.T.Helper()
	m.T.Setenv("PATH", m.Path("/bin")+":"+os.Getenv("PATH"))
	m.T.Setenv("FERRY_TEST_ROOT", m.Dir)
}

// Open lets other users reach the machine's files.
func (m *Machine) Open() {
	m.T.Helper()
	for _, folder := range []string{m.Dir, filepath.Dir(m.Dir)} {
		if err := os.Chmod(folder, 0o755); err != nil {
			m.T.Fatal(err)
		}
	}
}

// WithSystemd is the machine with systemd as its first process.
func (m *Machine) WithSystemd() *Machine {
	m.T.Helper()
	m.Write(machine.SystemdRuns+"/.keep", "")
	return m
}

// countingSystemctl tells of the service loop.service, which is started again between two looks while /control/loops is there.
// The file states has the other services.
const countingSystemctl = `#!/bin/sh
control=$FERRY_TEST_ROOT/control
case $1 in
list-units) cat "$control/failed" 2>/dev/null;;
show)
	case $* in *StateChangeTimestampMonotonic*) ;; *) exit 1;; esac
	while [ "$1" != -- ]; do shift; done
	n=$(cat "$control/count")
	[ ! -e "$control/loops" ] || echo $((n + 1)) >"$control/count"
	for name; do case $name in
	waits.service) printf 'Id=waits.service\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainStatus=1\nNRestarts=9\n\n';;
	again.service) printf 'Id=again.service\nActiveState=activating\nSubState=auto-restart\nResult=success\nExecMainStatus=0\nNRestarts=9\n\n';;
	'*.service'|loop.service) printf 'Id=loop.service\nActiveState=active\nSubState=running\nResult=success\nExecMainStatus=0\nNRestarts=%s\nStateChangeTimestampMonotonic=%s\n\n' "$n" "$(cat "$control/since")";;
	esac; done
	cat "$control/others" 2>/dev/null;;
stop) shift 2; for unit; do echo "stop $unit" >>"$FERRY_TEST_ROOT/timers"; done;;
esac
exit 0
`

// WithServices gives the machine a systemd that tells of loop.service, which was started again count times, the last time at the uptime
// since, and of the units that failed lists.
func (m *Machine) WithServices(failed, count string, since int64) *Machine {
	m.T.Helper()
	m.WithSystemd().Program("/bin/systemctl", countingSystemctl)
	m.Write("/control/failed", failed)
	m.Write("/control/count", count+"\n")
	m.Write("/control/since", fmt.Sprintf("%d000\n", since))
	return m
}

// Knock connects to the socket and says something; it gives the answer, "" for none.
func Knock(t testing.TB, socket, greeting string) (net.Conn, string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, ""
	}
	t.Cleanup(func() { _ = conn.Close() })
	// A side that does not want it may have closed it already.
	_, _ = io.WriteString(conn, greeting)
	answer := make([]byte, 1)
	n, _ := conn.Read(answer)
	return conn, string(answer[:n])
}
