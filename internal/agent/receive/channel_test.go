package receive

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine/machinetest"
)

// TestAChannelIsTheLoginUsersWithTheToken locks who may join, and as what.
func TestAChannelIsTheLoginUsersWithTheToken(t *testing.T) {
	for name, c := range map[string]struct {
		uid      int
		greeting string
		want     string
	}{
		"right":            {os.Getuid(), shipToken + "\x02", "\x02"},
		"of another user":  {os.Getuid() + 1, shipToken + "\x00", ""},
		"another token":    {os.Getuid(), strings.ToUpper(shipToken) + "\x00", ""},
		"too high":         {os.Getuid(), shipToken + "\x03", ""},
		"taken already":    {os.Getuid(), shipToken + "\x01", ""},
		"without a number": {os.Getuid(), shipToken, ""},
	} {
		t.Run(name, func(t *testing.T) {
			socket := t.TempDir() + "/run/lanes"
			// What a killed agent has left is no hindrance.
			if err := os.MkdirAll(socket[:len(socket)-len("/lanes")], 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(socket, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			l, err := listenChannels(socket, c.uid, shipToken)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if name == "taken already" {
				if _, answer := machinetest.Knock(t, socket, shipToken+"\x01"); answer != "\x01" {
					t.Errorf("the first was answered %q", answer)
				}
			}
			conn, answer := machinetest.Knock(t, socket, c.greeting)
			if answer != c.want {
				t.Errorf("answered %q, want %q", answer, c.want)
			}
			l.close()
			if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Error("it goes on after the ship")
			}
			if _, err := os.Stat(socket); !os.IsNotExist(err) {
				t.Errorf("the socket is there: %v", err)
			}
		})
	}
	if _, err := listenChannels(t.TempDir()+"/lanes", -1, shipToken); err == nil {
		t.Error("nobody knows who the login user is, and somebody may join")
	}
}

// TestAChannelBringsWhatWasSentOrSaysWhyNot reads from channels that bring all, end early, bring nothing, or are not there.
func TestAChannelBringsWhatWasSentOrSaysWhyNot(t *testing.T) {
	for name, c := range map[string]struct {
		sent string
		end  bool
		says string
	}{
		"all":             {"piece", false, ""},
		"all, and ends":   {"piece", true, ""},
		"a part":          {"pie", true, "it has ended"},
		"nothing":         {"", true, "it has ended"},
		"a part, late":    {"pie", false, "nothing comes any more"},
		"nobody is there": {"none", false, "nobody has joined it"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := t.TempDir() + "/lanes"
			l, err := listenChannels(socket, os.Getuid(), shipToken)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			if name != "nobody is there" {
				conn, answer := machinetest.Knock(t, socket, shipToken+"\x01")
				if answer != "\x01" {
					t.Fatalf("answered %q", answer)
				}
				if _, err := io.WriteString(conn, c.sent); err != nil {
					t.Fatal(err)
				}
				if c.end {
					_ = conn.Close()
				}
			}
			if name == "a part, late" {
				l.limit = 50 * time.Millisecond
			}
			chunk := make([]byte, len("piece"))
			err = l.read(1, chunk)
			if c.says == "" && (err != nil || string(chunk) != "piece") || c.says != "" && (err == nil || err.Error() != c.says) {
				t.Errorf("%q, %v", chunk, err)
			}
		})
	}
}

// TestChannelJoinsItsStreamsWithTheSocket runs what ferry runs as the login user, until the ship ends and until ferry ends.
func TestChannelJoinsItsStreamsWithTheSocket(t *testing.T) {
	for _, ends := range []string{"the ship", "ferry"} {
		t.Run(ends, func(t *testing.T) {
			socket := t.TempDir() + "/lanes"
			l, err := listenChannels(socket, os.Getuid(), shipToken)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			in, far := io.Pipe()
			near, out := io.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- Channel(t.Context(), socket, in, out) }()
			line := make([]byte, len(agent.Connected)+1)
			if _, err := io.ReadFull(near, line); err != nil || string(line) != agent.Connected+"\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if _, err := io.WriteString(far, shipToken+"\x00"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(near, line[:1]); err != nil || line[0] != 0 {
				t.Fatalf("%q, %v", line[:1], err)
			}
			go func() { _, _ = io.WriteString(far, "piece") }()
			chunk := make([]byte, len("piece"))
			if err := l.read(0, chunk); err != nil || string(chunk) != "piece" {
				t.Errorf("%q, %v", chunk, err)
			}
			if ends == "ferry" {
				_ = far.Close()
				if err := l.read(0, chunk); err == nil {
					t.Errorf("then %q", chunk)
				}
			}
			l.close()
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Error("it goes on")
			}
		})
	}
	if err := Channel(t.Context(), t.TempDir()+"/lanes", nil, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a ship: %v", err)
	}
}

const shipToken = "abcdefghijklmnopqrstuvwxyz"
