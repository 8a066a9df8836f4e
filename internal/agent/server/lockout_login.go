package server

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ferry/internal/run"
)

// login is how whoever deploys came to this machine. What could not be found out is empty.
type login struct {
	user string
	uid  int
	home string
	// elevate is the program that made root of the user: sudo or doas; "" for root's own login, and for other programs.
	elevate string

	// ssh says that an OpenSSH server let the user in; the rest is about that.
	ssh            bool
	client, server netip.AddrPort
	unit           string // the systemd unit of the server that was connected to
	method         string // publickey, password, keyboard-interactive/pam
	key            string // the fingerprint of the key, SHA256:…
	certificate    bool   // the key came with a certificate

	daemons []process // the server's processes
}

// process is one of the agent's ancestors.
type process struct {
	pid, parent, uid int
	name             string
}

// passwordFolders are where NixOS keeps /etc/passwd and its like.
var passwordFolders = []string{"/etc", "/var/lib/nixos"}

// maxAncestors is how many parents are looked at: a login has about six.
const maxAncestors = 32

// findLogin goes from the process pid up to the server that let the user in. sudo keeps SSH_CONNECTION from its command, but
// the user's login shell has it.
func findLogin(ctx context.Context, runner *run.Runner, r root, pid int) login {
	l := login{uid: -1}
	var connection, userAuth string
	var shell process
	environment := map[string]string{}
	for range maxAncestors {
		p, ok := r.process(pid)
		if !ok {
			break
		}
		pid = p.parent
		switch {
		case strings.HasPrefix(p.name, "sshd"):
			l.daemons = append(l.daemons, p)
			continue
		case (p.name == "sudo" || p.name == "doas") && l.elevate == "":
			l.elevate = p.name
		}
		// What is above the server is not this login.
		if len(l.daemons) > 0 || p.pid == 1 {
			break
		}
		vars := r.environ(p.pid)
		if vars["SSH_CONNECTION"] != "" {
			connection, userAuth, shell, environment = vars["SSH_CONNECTION"], vars["SSH_USER_AUTH"], p, vars
		}
		for _, name := range []string{"SUDO_USER", "DOAS_USER"} {
			if l.user == "" {
				l.user = vars[name]
			}
		}
	}
	if connection == "" || len(l.daemons) == 0 {
		l.fromPasswd(r, l.user, -1)
		if l.uid == 0 {
			l.elevate = ""
		}
		return l
	}
	l.fromPasswd(r, environment["USER"], shell.uid)
	if l.uid == 0 {
		l.elevate = ""
	}
	l.ssh = true
	l.client, l.server = parseConnection(connection)
	l.unit = r.unitOf(l.daemons[len(l.daemons)-1].pid)
	l.authentication(ctx, runner, r, userAuth)
	return l
}

// fromPasswd looks the user up: by name and number where both are given, because a number may have several names.
func (l *login) fromPasswd(r root, name string, uid int) {
	l.user, l.uid = name, uid
	text, found := newInspectedFiles(r).read("/etc/passwd", passwordFolders...)
	if found != present || name == "" && uid < 0 {
		return
	}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 {
			continue
		}
		number, err := strconv.Atoi(f[2])
		if err != nil || uid >= 0 && number != uid || uid < 0 && f[0] != name {
			continue
		}
		if l.home == "" || f[0] == name {
			l.user, l.uid, l.home = f[0], number, f[5]
		}
	}
}

// parseConnection reads "CLIENT PORT SERVER PORT". What it cannot read is not valid.
func parseConnection(s string) (client, server netip.AddrPort) {
	f := strings.Fields(s)
	if len(f) != 4 {
		return client, server
	}
	return addrPort(f[0], f[1]), addrPort(f[2], f[3])
}

func addrPort(address, port string) netip.AddrPort {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.AddrPort{}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(n))
}

// process reads /proc/PID/status.
func (r root) process(pid int) (process, bool) {
	p := process{pid: pid, uid: -1}
	text, err := r.small("/proc/" + strconv.Itoa(pid) + "/status")
	if pid <= 0 || err != nil {
		return p, false
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch key {
		case "Name":
			p.name = f[0]
		case "PPid":
			p.parent, _ = strconv.Atoi(f[0])
		case "Uid":
			p.uid, _ = strconv.Atoi(f[0])
		}
	}
	return p, true
}

// environ reads what a process was started with.
func (r root) environ(pid int) map[string]string {
	text, err := r.small("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil
	}
	vars := map[string]string{}
	for entry := range bytes.SplitSeq(text, []byte{0}) {
		if name, value, ok := strings.Cut(string(entry), "="); ok {
			vars[name] = value
		}
	}
	return vars
}

// unitOf is the systemd unit that a process belongs to, by its control group.
func (r root) unitOf(pid int) string {
	text, err := r.small("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (f[1] == "" || f[1] == "name=systemd") && strings.HasSuffix(f[2], ".service") {
			return path.Base(f[2])
		}
	}
	return ""
}

// small reads the beginning of a file of /proc.
func (r root) small(p string) ([]byte, error) {
	file, err := os.Open(r.path(p))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, 256<<10))
}

// asking is how long a program may take that is asked about the login or the new system.
const asking = 5 * time.Second

// authentication finds out how the user showed who they are: what sshd left in a file for the session, else what it logged.
func (l *login) authentication(ctx context.Context, runner *run.Runner, r root, userAuth string) {
	if l.exposed(r, userAuth) {
		return
	}
	pids := make([]string, 0, len(l.daemons))
	for _, p := range l.daemons {
		pids = append(pids, "_PID="+strconv.Itoa(p.pid))
	}
	if r.exists(systemdRuns) {
		ctx, cancel := context.WithTimeout(ctx, asking)
		defer cancel()
		argv := append([]string{"journalctl", "--boot", "--quiet", "--no-pager", "--output=cat", "--lines=100"}, pids...)
		if out, err := runner.Output(ctx, run.Command{Argv: argv, Grace: time.Second}); err == nil && l.accepted(string(out)) {
			return
		}
	}
	for _, name := range append(r.ownLogs(l.daemons), "/var/log/auth.log", "/var/log/secure", "/var/log/messages") {
		if l.accepted(r.end(name)) {
			return
		}
	}
}

// exposed reads the file of sshd's ExposeAuthInfo. Its name comes from the user's environment.
func (l *login) exposed(r root, name string) bool {
	if !path.IsAbs(name) {
		return false
	}
	file, err := os.OpenFile(r.path(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return false
	}
	text, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		method, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch method {
		case "publickey":
			k, ok := parseKey(rest)
			if !ok {
				return false
			}
			l.method, l.key, l.certificate = method, k.fingerprint, strings.Contains(rest, "-cert-")
		case "password", "keyboard-interactive/pam", "keyboard-interactive":
			l.method = method
		}
	}
	return l.method != ""
}

// accepted looks for the line with which sshd let this connection in:
// "Accepted publickey for alice from 192.0.2.1 port 40000 ssh2: ED25519 SHA256:…".
func (l *login) accepted(log string) bool {
	found := false
	for line := range strings.Lines(log) {
		_, said, ok := strings.Cut(line, "Accepted ")
		f := strings.Fields(said)
		if !ok || len(f) < 7 || f[1] != "for" || f[2] != l.user || f[3] != "from" || f[5] != "port" || addrPort(f[4], f[6]) != l.client {
			continue
		}
		// A port is used again some day: the last one counts.
		found = true
		l.method, l.key, l.certificate = f[0], "", false
		if f[0] == "publickey" && len(f) >= 10 && strings.HasPrefix(f[9], "SHA256:") {
			l.key, l.certificate = f[9], strings.HasSuffix(f[8], "-CERT")
		}
	}
	return found
}

// ownLogs are files that sshd writes its log into, by its option -E, as its command line shows.
func (r root) ownLogs(daemons []process) []string {
	var logs []string
	for _, p := range daemons {
		text, err := r.small("/proc/" + strconv.Itoa(p.pid) + "/cmdline")
		if err != nil {
			continue
		}
		words := strings.Fields(strings.ReplaceAll(string(text), "\x00", " "))
		for i, word := range words {
			if word == "-E" && i+1 < len(words) && path.IsAbs(words[i+1]) {
				logs = append(logs, words[i+1])
			}
		}
	}
	return logs
}

// maxLogEnd is how much of a log is searched, in bytes.
const maxLogEnd = 1 << 20

// end is the end of a log.
func (r root) end(name string) string {
	file, err := os.OpenFile(r.path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, err := io.ReadAll(io.NewSectionReader(file, max(0, info.Size()-maxLogEnd), maxLogEnd))
	if err != nil {
		return ""
	}
	return string(text)
}
