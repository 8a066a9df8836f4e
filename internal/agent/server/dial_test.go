package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/agent"
)

// listen is a service that answers each line, and says goodbye at the end of what it is sent.
func listen(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					_, _ = io.WriteString(conn, "heard "+lines.Text()+"\n")
				}
				_, _ = io.WriteString(conn, "goodbye\n")
			}()
		}
	}()
	return listener.Addr().String()
}

// resolver puts a getent into PATH that knows what the script does.
func resolver(t *testing.T, script string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "getent"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

func TestDialJoinsTheConnection(t *testing.T) {
	address := listen(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ getent, address string }{
		"an address": {"exit 9", address},
		// As multicast DNS or a container manager may know it, and DNS does not.
		"a name that only the machine knows": {`[ "$*" = "ahosts -- printer.local" ] || exit 2; echo "127.0.0.1       STREAM printer.local"`, "printer.local:" + port},
		"a name with two addresses":          {`printf '%s\n' "127.0.0.9  STREAM web" "127.0.0.9  DGRAM" nonsense "127.0.0.1  STREAM"`, "web:" + port},
	} {
		t.Run(name, func(t *testing.T) {
			resolver(t, c.getent)
			var out bytes.Buffer
			if err := Dial(t.Context(), c.address, strings.NewReader("one\ntwo\n"), &out); err != nil {
				t.Fatal(err)
			}
			if want := agent.Connected + "\nheard one\nheard two\ngoodbye\n"; out.String() != want {
				t.Errorf("it says %q", out.String())
			}
		})
	}
}

func TestDialWithoutGetentKnowsTheMachinesHosts(t *testing.T) {
	_, port, err := net.SplitHostPort(listen(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := Dial(t.Context(), "localhost:"+port, strings.NewReader(""), io.Discard); err != nil {
		t.Error(err)
	}
}

func TestDialSaysInOneLineWhyItCannot(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	_ = listener.Close()
	resolver(t, `exit 2`)
	for name, c := range map[string]struct{ address, want string }{
		"nobody listens":       {closed, "connect to " + closed + ": connection refused"},
		"unknown host":         {"none.example:80", "connect to none.example:80: no such host"},
		"an option as host":    {"--help:80", "connect to --help:80: no such host"},
		"a host that is two":   {"a\nb\x07:80", "connect to a?b?:80: no such host"},
		"no port":              {"web1", "connect to web1: address web1: missing port in address"},
		"a port that is none":  {"127.0.0.1:http://", "connect to 127.0.0.1:http://: address 127.0.0.1:http://: too many colons in address"},
		"a port out of bounds": {"127.0.0.1:99999", "connect to 127.0.0.1:99999: address 99999: invalid port"},
	} {
		err := Dial(t.Context(), c.address, strings.NewReader(""), io.Discard)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// silent never says anything, as a target that hangs.
type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, io.EOF
}

func TestDialEndsWithItsContext(t *testing.T) {
	address := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	near, far := io.Pipe()
	go func() { ended <- Dial(ctx, address, silent{t.Context()}, far) }()
	if line, err := bufio.NewReader(near).ReadString('\n'); err != nil || line != agent.Connected+"\n" {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
