package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// crossing is a stream from end to end: a main channel, and channels that the far side has in what it admits.
type crossing struct {
	t      *testing.T
	stream *Stream
	reader *DataReader
	near   *Wire
	far    [MaxChannels]chan net.Conn
}

// cross makes one, whose channels are joined by what greets answers with.
func cross(t *testing.T, join func(ctx context.Context, c *crossing) (net.Conn, error)) *crossing {
	t.Helper()
	in, out := io.Pipe()
	c := &crossing{t: t, near: NewWire(nil, out), reader: NewWire(in, nil).DataReader()}
	for i := range c.far {
		c.far[i] = make(chan net.Conn, 1)
	}
	s := &Stream{main: c.near.DataWriter(), announce: func(p []byte) error { return c.near.Write(FrameChannel, p) }, token: strings.Repeat("t", tokenLength)}
	s.ctx, s.cancel = context.WithCancel(t.Context())
	s.join = func(ctx context.Context) (net.Conn, error) { return join(ctx, c) }
	c.stream = s
	c.reader.Channel = func(n int, p []byte) error {
		conn := <-c.far[n]
		c.far[n] <- conn
		_, err := io.ReadFull(conn, p)
		return err
	}
	t.Cleanup(func() {
		s.close()
		_ = in.Close()
	})
	return c
}

// joined is the far side of a channel that is taken as what it says.
func joined(_ context.Context, c *crossing) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		greeting := make([]byte, ChannelGreeting)
		if _, err := io.ReadFull(far, greeting); err != nil {
			return
		}
		if string(greeting[:tokenLength]) != c.stream.token {
			_ = far.Close()
			return
		}
		n := greeting[tokenLength]
		c.far[n] <- far
		_, _ = far.Write([]byte{n})
	}()
	return near, nil
}

// widened waits until there are as many channels.
func (c *crossing) widened(channels int) {
	c.t.Helper()
	for range channels {
		if !c.stream.Widen() {
			c.t.Fatal("there is no other channel")
		}
	}
	c.until("the channels are there", func() bool { return c.stream.Channels() == channels })
}

func (c *crossing) until(what string, is func() bool) {
	c.t.Helper()
	for limit := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			c.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// send writes everything in chunks of all sizes, from another goroutine.
func (c *crossing) send(text []byte) (sent <-chan error) {
	done := make(chan error, 1)
	go func() {
		random := rand.New(rand.NewPCG(1, 2))
		for len(text) > 0 {
			n := min(len(text), 1+random.IntN(3*MaxChunk))
			if _, err := c.stream.Write(text[:n]); err != nil {
				done <- err
				return
			}
			text = text[n:]
		}
		done <- c.near.Write(FrameData, nil)
	}()
	return done
}

func noise(size int) []byte {
	text := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(text)
	return text
}

// TestAStreamOverChannelsArrivesInOrder sends one that gets its channels on its way.
func TestAStreamOverChannelsArrivesInOrder(t *testing.T) {
	for channels := range MaxChannels + 1 {
		c := cross(t, joined)
		text := noise(12 << 20)
		half := len(text) / 2
		sent := c.send(text[:half])
		got := make([]byte, half)
		if _, err := io.ReadFull(c.reader, got); err != nil || !bytes.Equal(got, text[:half]) {
			t.Fatalf("the first half is another one, %v", err)
		}
		if n, err := c.reader.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatal(n, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		c.reader.err = nil
		c.widened(channels)
		sent = c.send(text[half:])
		got, err := io.ReadAll(c.reader)
		if err != nil || !bytes.Equal(got, text[half:]) {
			t.Errorf("%d channels: the second half is another one, %v", channels, err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if channels == MaxChannels && c.stream.Widen() {
			t.Error("there is one more channel")
		}
		for n := range channels {
			c.until("the channel has its memory back", func() bool { return len(c.stream.channels[n].spare) == chunksAhead })
		}
	}
}

// TestAChannelThatFailsEndsTheStream has channels that lie, end in a chunk and die, each noticed at the chunk that is missing. The far side can
// then go on with the next request.
func TestAChannelThatFailsEndsTheStream(t *testing.T) {
	for name, hurt := range map[string]func(conn net.Conn, p []byte) error{
		"lies":            func(_ net.Conn, p []byte) error { p[len(p)/2] ^= 1; return nil },
		"ends in a piece": func(conn net.Conn, p []byte) error { _ = conn.Close(); return io.ErrUnexpectedEOF },
	} {
		t.Run(name, func(t *testing.T) {
			c := cross(t, joined)
			c.widened(2)
			read, chunks := c.reader.Channel, 0
			c.reader.Channel = func(n int, p []byte) error {
				if err := read(n, p); err != nil {
					return err
				}
				if chunks++; chunks < 5 {
					return nil
				}
				conn := <-c.far[n]
				c.far[n] <- conn
				return hurt(conn, p)
			}
			text := noise(8 << 20)
			sent := c.send(text)
			got, err := io.ReadAll(c.reader)
			var lost *ChannelError
			if !errors.As(err, &lost) || !c.reader.Lost() {
				t.Fatalf("got %v", err)
			}
			if !bytes.HasPrefix(text, got) {
				t.Error("something else came before")
			}
			if err := c.reader.Drain(); err != nil {
				t.Errorf("the rest: %v", err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAChannelThatDiesHereIsNotUsedAgain locks that a channel that nothing was sent over may end without a loss.
func TestAChannelThatDiesHereIsNotUsedAgain(t *testing.T) {
	c := cross(t, joined)
	c.widened(2)
	conn := <-c.far[1]
	_ = conn.Close()
	c.until("it is noticed", func() bool { return c.stream.Channels() == 1 })
	text := noise(4 << 20)
	sent := c.send(text)
	if got, err := io.ReadAll(c.reader); err != nil || !bytes.Equal(got, text) {
		t.Errorf("something else has come, %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestAStreamGoesOnWithoutChannelsThatCannotBeHad has some that cannot be opened, are not taken, or are taken for another one.
func TestAStreamGoesOnWithoutChannelsThatCannotBeHad(t *testing.T) {
	for name, join := range map[string]func(ctx context.Context, c *crossing) (net.Conn, error){
		"refused": func(context.Context, *crossing) (net.Conn, error) { return nil, errors.New("no further session") },
		"closed": func(context.Context, *crossing) (net.Conn, error) {
			near, far := net.Pipe()
			return near, far.Close()
		},
		"taken for another": func(context.Context, *crossing) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				_, _ = io.ReadFull(far, make([]byte, ChannelGreeting))
				_, _ = far.Write([]byte{7})
			}()
			return near, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := cross(t, join)
			if !c.stream.Widen() {
				t.Fatal("it does not try")
			}
			c.until("it is given up", func() bool { return !c.stream.Widen() })
			text := noise(1 << 20)
			sent := c.send(text)
			if got, err := io.ReadAll(c.reader); err != nil || !bytes.Equal(got, text) {
				t.Errorf("something else has come, %v", err)
			}
			if err := <-sent; err != nil || c.stream.Channels() != 0 {
				t.Errorf("%d channels, %v", c.stream.Channels(), err)
			}
		})
	}
}

// TestTheEndOfAShipEndsItsChannels locks that neither a channel that is blocked nor one that is on its way to be one outlives the ship.
func TestTheEndOfAShipEndsItsChannels(t *testing.T) {
	waits := make(chan struct{})
	c := cross(t, func(ctx context.Context, c *crossing) (net.Conn, error) {
		if c.stream.Channels() == 0 {
			return joined(ctx, c)
		}
		close(waits)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	c.widened(1)
	// Nobody reads it: its chunks are all in use.
	for range chunksAhead {
		if err := c.stream.channels[0].send(noise(1<<10), func([]byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	c.stream.Widen()
	<-waits
	c.stream.close()
	far := <-c.far[0]
	if _, err := io.Copy(io.Discard, far); err != nil {
		t.Errorf("its other end: %v", err)
	}
	if c.stream.Channels() != 0 || c.stream.Widen() {
		t.Error("there are channels")
	}
}

// TestAChunkNeedsAChannel locks that a request that has no channels takes no chunk of one.
func TestAChunkNeedsAChannel(t *testing.T) {
	var stream bytes.Buffer
	if err := NewWire(nil, &stream).Write(FrameChannel, ChannelChunk{Length: 1}.announcement()); err != nil {
		t.Fatal(err)
	}
	if _, err := NewWire(&stream, nil).DataReader().Read(make([]byte, 1)); !errors.Is(err, errFrame) {
		t.Errorf("got %v", err)
	}
}

// What announces a chunk says nothing that costs the agent more than a chunk.
func FuzzParseChannelChunk(f *testing.F) {
	f.Add(ChannelChunk{Channel: MaxChannels - 1, Length: MaxChunk, Sum: sha256.Sum256(nil)}.announcement())
	f.Add(ChannelChunk{Channel: MaxChannels, Length: 1}.announcement())
	f.Add(ChannelChunk{Length: MaxChunk + 1}.announcement())
	f.Add(ChannelChunk{}.announcement())
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := parseChannelChunk(payload)
		if err != nil {
			if !errors.Is(err, errFrame) {
				t.Error(err)
			}
			return
		}
		if p.Channel >= MaxChannels || p.Length < 1 || p.Length > MaxChunk || !bytes.Equal(p.announcement(), payload) {
			t.Errorf("%q is %+v", payload, p)
		}
	})
}
