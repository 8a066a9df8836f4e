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
	"ferry/internal/agent/machine/machinetest"
	"ferry/internal/nix"
)

const shipToken = "abcdefghijklmnopqrstuvwxyz"

// channelShip is a ship of a large path whose every second chunk goes over a channel.
type channelShip struct {
	*berth
	f       *ferry
	channel net.Conn
}

// isLoginOf makes the machine know that this process is of the user who logged in.
func isLoginOf(m *fakeMachine) {
	m.Write(fmt.Sprintf("/proc/%d/status", os.Getpid()), "Name:\tferry-agent\nPPid:\t1\n")
	m.Write(fmt.Sprintf("/proc/%d/environ", os.Getpid()), "SUDO_USER=alice\x00")
	m.Write("/etc/passwd", fmt.Sprintf("alice:x:%d:0::/:/bin/sh\n", os.Getuid()))
}

func newChannelShip(t *testing.T) *channelShip {
	t.Helper()
	b := newBerth(t)
	isLoginOf(b.fakeMachine)
	return &channelShip{berth: b, f: b.connect(locked("s1"))}
}

// begin asks for the ship, hears that it has begun, and joins a channel.
func (s *channelShip) begin() {
	s.T.Helper()
	s.f.send(agent.Request{Method: agent.MethodShip, Channels: shipToken})
	kind, payload, err := s.f.wire.Read()
	if err != nil || kind != agent.FrameProgress || !bytes.Contains(payload, []byte(`"begun":true`)) {
		s.T.Fatalf("%q %q, %v", kind, payload, err)
	}
	var answer string
	for limit := time.Now().Add(time.Minute); answer == ""; {
		if s.channel, answer = machinetest.Knock(s.T, s.Path(agent.ChannelSocket), shipToken+"\x00"); answer == "" && time.Now().After(limit) {
			s.T.Fatal("nobody answers")
		}
	}
}

// send sends a stream, the chunks of the channel by over, and gives the answer.
func (s *channelShip) send(text []byte, over func(n int, chunk []byte)) agent.Response {
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
func (s *channelShip) sendAlone(text []byte) agent.Response {
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

func (s *channelShip) write(text []byte, over func(n int, chunk []byte)) error {
	data := s.f.wire.DataWriter()
	for n := 0; len(text) > 0; n++ {
		chunk := text[:min(len(text), agent.MaxChunk)]
		text = text[len(chunk):]
		if n%2 == 0 {
			if _, err := data.Write(chunk); err != nil {
				return err
			}
			continue
		}
		sum := sha256.Sum256(chunk)
		head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(chunk)))
		if err := s.f.wire.Write(agent.FrameChannel, append(head, sum[:]...)); err != nil {
			return err
		}
		over(n, chunk)
	}
	return data.Close()
}

// TestAShipWithAChannelArrives locks that the store gets what was sent over both.
func TestAShipWithAChannelArrives(t *testing.T) {
	s := newChannelShip(t)
	s.begin()
	r := s.send(compress(t, stream(t, true, s.small, s.large)), func(_ int, chunk []byte) {
		if _, err := s.channel.Write(chunk); err != nil {
			t.Error(err)
		}
	})
	if r.Error != nil || r.Ship == nil || r.Ship.Registered != 2 {
		t.Fatalf("%+v", r)
	}
	if n, err := s.channel.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Errorf("the channel goes on: %v", err)
	}
	if _, err := os.Stat(s.Path(agent.ChannelSocket)); !os.IsNotExist(err) {
		t.Errorf("the socket is there: %v", err)
	}
}

// TestAShipWhoseChannelFailsGoesOnWithoutIt locks that nothing that a channel brings gets into the store, that the failure has a name, and that the
// same agent goes on with the path where it was.
func TestAShipWhoseChannelFailsGoesOnWithoutIt(t *testing.T) {
	for name, over := range map[string]func(s *channelShip, n int, chunk []byte){
		"lies": func(s *channelShip, n int, chunk []byte) {
			if n > 80 {
				chunk = append([]byte{chunk[0] ^ 1}, chunk[1:]...)
			}
			_, _ = s.channel.Write(chunk)
		},
		"dies": func(s *channelShip, n int, chunk []byte) {
			if n > 80 {
				_ = s.channel.Close()
			}
			_, _ = s.channel.Write(chunk)
		},
		"ends in a piece": func(s *channelShip, n int, chunk []byte) {
			if n > 80 {
				chunk = chunk[:100]
			}
			_, _ = s.channel.Write(chunk)
			if n > 80 {
				_ = s.channel.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newChannelShip(t)
			s.begin()
			r := s.send(compress(t, stream(t, true, s.small, s.large)), func(n int, chunk []byte) { over(s, n, chunk) })
			if r.Error == nil || r.Error.Kind != agent.KindChannel || r.Error.Parked == nil {
				t.Fatalf("%+v", r.Error)
			}
			s.f.hello.Parked = r.Error.Parked
			from := s.parked(s.f)
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
func (s *channelShip) isThere(items ...item) {
	s.T.Helper()
	for _, x := range items {
		var nar bytes.Buffer
		if err := nix.DumpPath(context.Background(), &nar, s.store.Path(string(x.header.Path))); err != nil || !bytes.Equal(nar.Bytes(), x.nar) {
			s.T.Errorf("%s: %v", x.header.Path, err)
		}
	}
}
