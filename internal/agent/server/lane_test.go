package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

const laneToken = "abcdefghijklmnopqrstuvwxyz"

// laneShip is a ship of a large path whose every second piece goes over a lane.
type laneShip struct {
	*berth
	f    *ferry
	lane net.Conn
}

// isLoginOf makes the machine know that this process is of the user who logged in.
func isLoginOf(m *fakeMachine) {
	m.Write(fmt.Sprintf("/proc/%d/status", os.Getpid()), "Name:\tferry-agent\nPPid:\t1\n")
	m.Write(fmt.Sprintf("/proc/%d/environ", os.Getpid()), "SUDO_USER=alice\x00")
	m.Write("/etc/passwd", fmt.Sprintf("alice:x:%d:0::/:/bin/sh\n", os.Getuid()))
}

func newLaneShip(t *testing.T) *laneShip {
	t.Helper()
	b := newBerth(t)
	isLoginOf(b.fakeMachine)
	return &laneShip{berth: b, f: b.connect(locked("s1"))}
}

// begin asks for the ship, hears that it has begun, and joins a lane.
func (s *laneShip) begin() {
	s.T.Helper()
	s.f.send(agent.Request{Method: agent.MethodShip, Lanes: laneToken})
	kind, payload, err := s.f.wire.Read()
	if err != nil || kind != agent.FrameProgress || !bytes.Contains(payload, []byte(`"begun":true`)) {
		s.T.Fatalf("%q %q, %v", kind, payload, err)
	}
	var answer string
	for limit := time.Now().Add(time.Minute); answer == ""; {
		if s.lane, answer = knock(s.T, s.Path(agent.LaneSocket), laneToken+"\x00"); answer == "" && time.Now().After(limit) {
			s.T.Fatal("nobody answers")
		}
	}
}

// send sends a stream, the pieces of the lane by over, and gives the answer.
func (s *laneShip) send(text []byte, over func(n int, piece []byte)) agent.Response {
	s.T.Helper()
	sent := make(chan error, 1)
	go func() { sent <- s.write(text, over) }()
	r, _ := s.f.answer()
	if err := <-sent; err != nil {
		s.T.Error(err)
	}
	return r
}

// sendAlone sends a stream over the main channel.
func (s *laneShip) sendAlone(text []byte) agent.Response {
	s.T.Helper()
	sent := make(chan error, 1)
	go func() {
		data := s.f.wire.DataWriter()
		_, err := data.Write(text)
		sent <- errors.Join(err, data.Close())
	}()
	r, _ := s.f.answer()
	if err := <-sent; err != nil {
		s.T.Error(err)
	}
	return r
}

func (s *laneShip) write(text []byte, over func(n int, piece []byte)) error {
	data := s.f.wire.DataWriter()
	for n := 0; len(text) > 0; n++ {
		piece := text[:min(len(text), agent.MaxLanePiece)]
		text = text[len(piece):]
		if n%2 == 0 {
			if _, err := data.Write(piece); err != nil {
				return err
			}
			continue
		}
		sum := sha256.Sum256(piece)
		head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(piece)))
		if err := s.f.wire.Write(agent.FrameLane, append(head, sum[:]...)); err != nil {
			return err
		}
		over(n, piece)
	}
	return data.Close()
}

// TestAShipWithALaneArrives locks that the store gets what was sent over both.
func TestAShipWithALaneArrives(t *testing.T) {
	s := newLaneShip(t)
	s.begin()
	r := s.send(compress(t, stream(t, true, s.small, s.large)), func(_ int, piece []byte) {
		if _, err := s.lane.Write(piece); err != nil {
			t.Error(err)
		}
	})
	if r.Error != nil || r.Ship == nil || r.Ship.Registered != 2 {
		t.Fatalf("%+v", r)
	}
	if n, err := s.lane.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Errorf("the lane goes on: %v", err)
	}
	if _, err := os.Stat(s.Path(agent.LaneSocket)); !os.IsNotExist(err) {
		t.Errorf("the socket is there: %v", err)
	}
}

// TestAShipWhoseLaneFailsGoesOnWithoutIt locks that nothing that a lane brings gets into the store, that the failure has a name, and that the
// same agent goes on with the path where it was.
func TestAShipWhoseLaneFailsGoesOnWithoutIt(t *testing.T) {
	for name, over := range map[string]func(s *laneShip, n int, piece []byte){
		"lies": func(s *laneShip, n int, piece []byte) {
			if n > 80 {
				piece = append([]byte{piece[0] ^ 1}, piece[1:]...)
			}
			_, _ = s.lane.Write(piece)
		},
		"dies": func(s *laneShip, n int, piece []byte) {
			if n > 80 {
				_ = s.lane.Close()
			}
			_, _ = s.lane.Write(piece)
		},
		"ends in a piece": func(s *laneShip, n int, piece []byte) {
			if n > 80 {
				piece = piece[:100]
			}
			_, _ = s.lane.Write(piece)
			if n > 80 {
				_ = s.lane.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newLaneShip(t)
			s.begin()
			r := s.send(compress(t, stream(t, true, s.small, s.large)), func(n int, piece []byte) { over(s, n, piece) })
			if r.Error == nil || r.Error.Kind != agent.KindLane || r.Error.Kept == nil {
				t.Fatalf("%+v", r.Error)
			}
			s.f.hello.Kept = r.Error.Kept
			from := s.kept(s.f)
			s.f.send(agent.Request{Method: agent.MethodShip})
			r = s.sendAlone(s.rest(from))
			if r.Error != nil || r.Ship == nil || r.Ship.Registered != 1 {
				t.Errorf("then %+v", r)
			}
			s.isThere(s.large, s.small)
		})
	}
}

// isThere checks that the machine's store has the paths as they are.
func (s *laneShip) isThere(items ...item) {
	s.T.Helper()
	for _, x := range items {
		var nar bytes.Buffer
		if err := nix.DumpPath(context.Background(), &nar, s.store.Path(string(x.header.Path))); err != nil || !bytes.Equal(nar.Bytes(), x.nar) {
			s.T.Errorf("%s: %v", x.header.Path, err)
		}
	}
}

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
