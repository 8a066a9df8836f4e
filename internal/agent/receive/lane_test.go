package receive

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
)

// knock connects to the socket and says something; it gives the answer, "" for none.
func knock(t *testing.T, socket, greeting string) (net.Conn, string) {
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

// TestALaneIsTheLoginUsersWithTheToken locks who may join, and as what.
func TestALaneIsTheLoginUsersWithTheToken(t *testing.T) {
	for name, c := range map[string]struct {
		uid      int
		greeting string
		want     string
	}{
		"right":            {os.Getuid(), laneToken + "\x02", "\x02"},
		"of another user":  {os.Getuid() + 1, laneToken + "\x00", ""},
		"another token":    {os.Getuid(), strings.ToUpper(laneToken) + "\x00", ""},
		"too high":         {os.Getuid(), laneToken + "\x03", ""},
		"taken already":    {os.Getuid(), laneToken + "\x01", ""},
		"without a number": {os.Getuid(), laneToken, ""},
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
			l, err := listenLanes(socket, c.uid, laneToken)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if name == "taken already" {
				if _, answer := knock(t, socket, laneToken+"\x01"); answer != "\x01" {
					t.Errorf("the first was answered %q", answer)
				}
			}
			conn, answer := knock(t, socket, c.greeting)
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
	if _, err := listenLanes(t.TempDir()+"/lanes", -1, laneToken); err == nil {
		t.Error("nobody knows who the login user is, and somebody may join")
	}
}

// TestALaneBringsWhatWasSentOrSaysWhyNot reads from lanes that bring all, end early, bring nothing, or are not there.
func TestALaneBringsWhatWasSentOrSaysWhyNot(t *testing.T) {
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
			l, err := listenLanes(socket, os.Getuid(), laneToken)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			if name != "nobody is there" {
				conn, answer := knock(t, socket, laneToken+"\x01")
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
			piece := make([]byte, len("piece"))
			err = l.read(1, piece)
			if c.says == "" && (err != nil || string(piece) != "piece") || c.says != "" && (err == nil || err.Error() != c.says) {
				t.Errorf("%q, %v", piece, err)
			}
		})
	}
}

// TestLaneJoinsItsStreamsWithTheSocket runs what ferry runs as the login user, until the ship ends and until ferry ends.
func TestLaneJoinsItsStreamsWithTheSocket(t *testing.T) {
	for _, ends := range []string{"the ship", "ferry"} {
		t.Run(ends, func(t *testing.T) {
			socket := t.TempDir() + "/lanes"
			l, err := listenLanes(socket, os.Getuid(), laneToken)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			in, far := io.Pipe()
			near, out := io.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- Lane(t.Context(), socket, in, out) }()
			line := make([]byte, len(agent.Connected)+1)
			if _, err := io.ReadFull(near, line); err != nil || string(line) != agent.Connected+"\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if _, err := io.WriteString(far, laneToken+"\x00"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(near, line[:1]); err != nil || line[0] != 0 {
				t.Fatalf("%q, %v", line[:1], err)
			}
			go func() { _, _ = io.WriteString(far, "piece") }()
			piece := make([]byte, len("piece"))
			if err := l.read(0, piece); err != nil || string(piece) != "piece" {
				t.Errorf("%q, %v", piece, err)
			}
			if ends == "ferry" {
				_ = far.Close()
				if err := l.read(0, piece); err == nil {
					t.Errorf("then %q", piece)
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
	if err := Lane(t.Context(), t.TempDir()+"/lanes", nil, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a ship: %v", err)
	}
}

const laneToken = "abcdefghijklmnopqrstuvwxyz"
