package machine

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
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

// Login is how whoever deploys came to this machine. What could not be found out is empty.
type Login struct {
	User string
	UID  int
	Home string
	// Elevate is the program that made root of the user: sudo or doas; "" for root's own login, and for other programs.
	Elevate string

	// SSH says that an OpenSSH server let the user in; the rest is about that.
	SSH            bool
	Client, Server netip.AddrPort
	Unit           string // the systemd unit of the server that was connected to
	Method         string // publickey, password, keyboard-interactive/pam
	Key            string // the fingerprint of the key, SHA256:…
	Certificate    bool   // the key came with a certificate

	Daemons []Process // the server's processes
}

// PasswordFolders are where NixOS keeps /etc/passwd and its like.
var PasswordFolders = []string{"/etc", "/var/lib/nixos"}

// MaxAncestors is how many parents are looked at: a login has about six.
const MaxAncestors = 32

// FindLogin goes from the process pid up to the server that let the user in. sudo keeps SSH_CONNECTION from its command, but
// the user's login shell has it.
func FindLogin(ctx context.Context, runner *run.Runner, r Root, pid int) Login {
	l := Login{UID: -1}
	var connection, userAuth string
	var shell Process
	environment := map[string]string{}
	for range MaxAncestors {
		p, ok := r.Process(pid)
		if !ok {
			break
		}
		pid = p.Parent
		switch {
		case strings.HasPrefix(p.Name, "sshd"):
			l.Daemons = append(l.Daemons, p)
			continue
		case (p.Name == "sudo" || p.Name == "doas") && l.Elevate == "":
			l.Elevate = p.Name
		}
		// What is above the server is not this login.
		if len(l.Daemons) > 0 || p.PID == 1 {
			break
		}
		vars := r.Environ(p.PID)
		if vars["SSH_CONNECTION"] != "" {
			connection, userAuth, shell, environment = vars["SSH_CONNECTION"], vars["SSH_USER_AUTH"], p, vars
		}
		for _, name := range []string{"SUDO_USER", "DOAS_USER"} {
			if l.User == "" {
				l.User = vars[name]
			}
		}
	}
	if connection == "" || len(l.Daemons) == 0 {
		l.FromPasswd(r, l.User, -1)
		if l.UID == 0 {
			l.Elevate = ""
		}
		return l
	}
	l.FromPasswd(r, environment["USER"], shell.UID)
	if l.UID == 0 {
		l.Elevate = ""
	}
	l.SSH = true
	l.Client, l.Server = ParseConnection(connection)
	l.Unit = r.UnitOf(l.Daemons[len(l.Daemons)-1].PID)
	l.authentication(ctx, runner, r, userAuth)
	return l
}

// FromPasswd looks the user up: by name and number where both are given, because a number may have several names.
func (l *Login) FromPasswd(r Root, name string, uid int) {
	l.User, l.UID = name, uid
	text, found := NewFiles(r).Read("/etc/passwd", PasswordFolders...)
	if found != Present || name == "" && uid < 0 {
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
		if l.Home == "" || f[0] == name {
			l.User, l.UID, l.Home = f[0], number, f[5]
		}
	}
}

// ParseConnection reads "CLIENT PORT SERVER PORT". What it cannot read is not valid.
func ParseConnection(s string) (client, server netip.AddrPort) {
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

// AskLimit is how long a program may take that is asked about the login or the new system.
const AskLimit = 5 * time.Second

// authentication finds out how the user showed who they are: what sshd left in a file for the session, else what it logged.
func (l *Login) authentication(ctx context.Context, runner *run.Runner, r Root, userAuth string) {
	if l.exposed(r, userAuth) {
		return
	}
	pids := make([]string, 0, len(l.Daemons))
	for _, p := range l.Daemons {
		pids = append(pids, "_PID="+strconv.Itoa(p.PID))
	}
	if r.Exists(SystemdRuns) {
		ctx, cancel := context.WithTimeout(ctx, AskLimit)
		defer cancel()
		argv := append([]string{"journalctl", "--boot", "--quiet", "--no-pager", "--output=cat", "--lines=100"}, pids...)
		if out, err := runner.Output(ctx, run.Command{Argv: argv, Grace: time.Second}); err == nil && l.accepted(string(out)) {
			return
		}
	}
	for _, name := range append(r.ownLogs(l.Daemons), "/var/log/auth.log", "/var/log/secure", "/var/log/messages") {
		if l.accepted(r.end(name)) {
			return
		}
	}
}

// exposed reads the file of sshd's ExposeAuthInfo. Its name comes from the user's environment.
func (l *Login) exposed(r Root, name string) bool {
	if !path.IsAbs(name) {
		return false
	}
	file, err := os.OpenFile(r.Path(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
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
			k, ok := ParseKey(rest)
			if !ok {
				return false
			}
			l.Method, l.Key, l.Certificate = method, k.Fingerprint, strings.Contains(rest, "-cert-")
		case "password", "keyboard-interactive/pam", "keyboard-interactive":
			l.Method = method
		}
	}
	return l.Method != ""
}

// accepted looks for the line with which sshd let this connection in:
// "Accepted publickey for alice from 192.0.2.1 port 40000 ssh2: ED25519 SHA256:…".
func (l *Login) accepted(log string) bool {
	found := false
	for line := range strings.Lines(log) {
		_, said, ok := strings.Cut(line, "Accepted ")
		f := strings.Fields(said)
		if !ok || len(f) < 7 || f[1] != "for" || f[2] != l.User || f[3] != "from" || f[5] != "port" || addrPort(f[4], f[6]) != l.Client {
			continue
		}
		// A port is used again some day: the last one counts.
		found = true
		l.Method, l.Key, l.Certificate = f[0], "", false
		if f[0] == "publickey" && len(f) >= 10 && strings.HasPrefix(f[9], "SHA256:") {
			l.Key, l.Certificate = f[9], strings.HasSuffix(f[8], "-CERT")
		}
	}
	return found
}

// ownLogs are files that sshd writes its log into, by its option -E, as its command line shows.
func (r Root) ownLogs(daemons []Process) []string {
	var logs []string
	for _, p := range daemons {
		text, err := r.small("/proc/" + strconv.Itoa(p.PID) + "/cmdline")
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
func (r Root) end(name string) string {
	file, err := os.OpenFile(r.Path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
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

// PublicKey is one key that may log in.
type PublicKey struct {
	Fingerprint string
	Comment     string
}

// ParseKey reads "TYPE BASE64 COMMENT".
func ParseKey(s string) (PublicKey, bool) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	if !strings.HasPrefix(kind, "ssh-") && !strings.HasPrefix(kind, "ecdsa-") && !strings.HasPrefix(kind, "sk-") &&
		!strings.HasPrefix(kind, "webauthn-") {
		return PublicKey{}, false
	}
	encoded, comment, _ := strings.Cut(strings.TrimSpace(rest), " ")
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(blob) == 0 {
		return PublicKey{}, false
	}
	sum := sha256.Sum256(blob)
	return PublicKey{"SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), strings.TrimSpace(comment)}, true
}
