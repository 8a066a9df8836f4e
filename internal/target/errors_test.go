package target

import (
	"context"
	"errors"
	"strings"
	"testing"

	"ferry/internal/run"
)

// What OpenSSH 9.2 says, recorded.
func TestConnectErrorFromWhatSSHSays(t *testing.T) {
	for name, c := range map[string]struct {
		said string
		kind Kind
		text string
	}{
		"unknown host": {"ssh: Could not resolve hostname nowhere.invalid: Name or service not known\r\n", HostUnknown, "Could not resolve hostname nowhere.invalid: Name or service not known"},
		"refused":      {"ssh: connect to host pi port 22: Connection refused\r\n", Refused, "connect to host pi port 22: Connection refused"},
		"no route":     {"ssh: connect to host 10.9.9.9 port 22: No route to host\r\n", NoRoute, "connect to host 10.9.9.9 port 22: No route to host"},
		"no network":   {"ssh: connect to host 10.9.9.9 port 22: Network is unreachable\r\n", NoRoute, "connect to host 10.9.9.9 port 22: Network is unreachable"},
		"time out":     {"ssh: connect to host 10.9.9.9 port 22: Connection timed out\r\n", TimedOut, "connect to host 10.9.9.9 port 22: Connection timed out"},
		"banner":       {"Connection timed out during banner exchange\r\nConnection to 10.9.9.9 port 22 timed out\r\n", TimedOut, "Connection timed out during banner exchange"},
		"key changed": {"@@@@@@@@@@@@@@@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n@@@@@@@@@@@@@@@@@@@\r\n" +
			"IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r\nHost key for pi has changed and you have requested strict checking.\r\nHost key verification failed.\r\n",
			KeyChanged, "the host key has changed"},
		"key unknown":                            {"No ED25519 host key is known for pi and you have requested strict checking.\r\nHost key verification failed.\r\n", KeyUnknown, "the host key is not known"},
		"denied":                                 {"alice@pi: Permission denied (publickey,password).\r\n", Denied, "alice@pi: Permission denied (publickey,password)"},
		"a file that is denied, and then more":   {"Load key \"/root/key\": Permission denied\r\nssh: connect to host pi port 22: Connection refused\r\n", Refused, "connect to host pi port 22: Connection refused"},
		"a firewall here":                        {"ssh: connect to host pi port 22: Permission denied\r\n", Unknown, "ssh: connect to host pi port 22: Permission denied"},
		"too many keys":                          {"Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\r\nDisconnected from 10.0.0.1 port 22\r\n", Denied, "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures"},
		"not responding":                         {"Timeout, server pi not responding.\r\n", Lost, "Timeout, server pi not responding"},
		"no terminal":                            {"PTY allocation request failed on channel 0\r\n", NoTerminal, "PTY allocation request failed on channel 0"},
		"broken pipe":                            {"client_loop: send disconnect: Broken pipe\r\n", Lost, "client_loop: send disconnect: Broken pipe"},
		"closed":                                 {"Connection to pi closed by remote host.\r\n", Lost, "Connection to pi closed by remote host"},
		"closed early":                           {"kex_exchange_identification: Connection closed by remote host\r\nConnection closed by 10.0.0.1 port 22\r\n", Lost, "kex_exchange_identification: Connection closed by remote host"},
		"reset":                                  {"kex_exchange_identification: read: Connection reset by peer\r\n", Lost, "kex_exchange_identification: read: Connection reset by peer"},
		"no more sessions":                       {"mux_client_request_session: session request failed: Session open refused by peer\r\nConnection closed by UNKNOWN port 65535\r\n", NoSession, "the ssh server allows no further session on a connection"},
		"nothing":                                {"", Lost, "the connection was lost"},
		"bad configuration":                      {"Bad owner or permissions on /home/alice/.ssh/config\r\n", Unknown, "Bad owner or permissions on /home/alice/.ssh/config"},
		"control characters from the other side": {"\x1b]0;title\x07Connection closed by \x1b[31mme\r\n", Lost, "Connection closed by me"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, err := ParseAddress("ssh://alice@pi:2222")
			if err != nil {
				t.Fatal(err)
			}
			failed := &run.Error{Argv: []string{"ssh"}, Status: 255, Stderr: c.said, Err: errors.New("exit status 255")}
			var e *Error
			if !errors.As(connectError(addr, failed), &e) {
				t.Fatal("no *Error")
			}
			if e.Kind != c.kind || e.Text != c.text {
				t.Errorf("got %q: %q", e.Kind, e.Text)
			}
			for _, hint := range e.Hints() {
				if strings.ContainsAny(hint, "\n\x1b") {
					t.Errorf("hint %q has control characters", hint)
				}
			}
			if c.kind == KeyChanged && !strings.Contains(e.Hints()[1], "ssh-keygen -R '[pi]:2222'") {
				t.Errorf("hint names another host: %q", e.Hints()[1])
			}
			var inner *run.Error
			if !errors.As(e, &inner) {
				t.Error("the command that failed is not in the error")
			}
		})
	}
}

func TestClassifyTellsWhatIsNoConnectionError(t *testing.T) {
	remote, err := ParseAddress("pi")
	if err != nil {
		t.Fatal(err)
	}
	local, err := ParseAddress("local")
	if err != nil {
		t.Fatal(err)
	}
	status := func(n int) error { return &run.Error{Argv: []string{"ssh"}, Status: n, Err: errors.New("exit status")} }
	for name, c := range map[string]struct {
		addr    Address
		err     error
		connect bool
	}{
		"success":                      {remote, nil, false},
		"the remote program's status":  {remote, status(1), false},
		"ssh's own status":             {remote, status(255), true},
		"ssh killed":                   {remote, status(-1), true},
		"the same status without ssh":  {local, status(255), false},
		"ended by ferry":               {remote, &run.Error{Argv: []string{"ssh"}, Status: -1, Err: context.Canceled}, false},
		"an error of another function": {remote, errors.New("other"), false},
	} {
		t.Run(name, func(t *testing.T) {
			got := classify(c.addr, nil, c.err)
			var connect *Error
			if errors.As(got, &connect) != c.connect {
				t.Errorf("got %v", got)
			}
			if !c.connect && got != c.err {
				t.Errorf("got %v instead of %v", got, c.err)
			}
		})
	}
}

func TestCtrlCWhileSSHAsksIsAnInterrupt(t *testing.T) {
	remote, err := ParseAddress("pi")
	if err != nil {
		t.Fatal(err)
	}
	said := &run.Error{Argv: []string{"ssh"}, Status: 255, Stderr: "Killed by signal 2.\r\n", Err: exitStatus(t, "exit 255")}
	killed := &run.Error{Argv: []string{"ssh"}, Status: -1, Err: exitStatus(t, "kill -INT $$")}
	for _, err := range []error{said, killed} {
		if got := classify(remote, nil, err); !errors.Is(got, ErrInterrupted) {
			t.Errorf("got %v", got)
		}
	}
}

// exitStatus is the error of os/exec after script.
func exitStatus(t *testing.T, script string) error {
	t.Helper()
	var failed *run.Error
	if err := new(run.Runner).Run(t.Context(), run.Command{Argv: []string{"/bin/sh", "-c", script}}); !errors.As(err, &failed) {
		t.Fatalf("%s: %v", script, err)
	}
	return failed.Err
}
