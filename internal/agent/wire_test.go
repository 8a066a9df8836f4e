package agent

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestWireBringsFramesAsTheyWereSent(t *testing.T) {
	var stream bytes.Buffer
	w := NewWire(nil, &stream)
	frames := map[FrameType][]byte{FrameHello: []byte("{}"), FrameData: nil, FrameLog: []byte("\x00\n\xff"), FrameResponse: make([]byte, MaxFrame)}
	order := []FrameType{FrameHello, FrameData, FrameLog, FrameResponse}
	for _, f := range order {
		if err := w.Write(f, frames[f]); err != nil {
			t.Fatal(err)
		}
	}
	r := NewWire(iotest.OneByteReader(&stream), nil)
	for _, f := range order {
		got, payload, err := r.Read()
		if err != nil || got != f || !bytes.Equal(payload, frames[f]) {
			t.Fatalf("frame %q: got %q with %d bytes, %v", f, got, len(payload), err)
		}
	}
	if _, _, err := r.Read(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestWireRefusesWhatIsTooLongOrCutOff(t *testing.T) {
	if err := NewWire(nil, io.Discard).Write(FrameData, make([]byte, MaxFrame+1)); err == nil {
		t.Error("a frame above the limit was written")
	}
	for name, c := range map[string]struct {
		stream string
		says   string
	}{
		"length above the limit": {"d\x00\x10\x00\x01", "the limit is"},
		"largest length":         {"d\xff\xff\xff\xff", "the limit is"},
		"cut off in the head":    {"d\x00", "unexpected EOF"},
		"no payload":             {"d\x00\x00\x00\x01", "unexpected EOF"},
		"cut off in the payload": {"d\x00\x00\x00\x02x", "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := NewWire(strings.NewReader(c.stream), nil).Read()
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDataStreamIsCutIntoFramesAndPutTogether(t *testing.T) {
	var stream bytes.Buffer
	wire := NewWire(&stream, &stream)
	sent := bytes.Repeat([]byte("0123456789"), 20_000)
	data := wire.DataWriter()
	for _, part := range [][]byte{sent[:1], nil, sent[1:150_000], sent[150_000:]} {
		if n, err := data.Write(part); err != nil || n != len(part) {
			t.Fatalf("wrote %d of %d: %v", n, len(part), err)
		}
	}
	if err := data.Close(); err != nil {
		t.Fatal(err)
	}
	if err := wire.Write(FrameRequest, []byte("next")); err != nil {
		t.Fatal(err)
	}
	reader := wire.DataReader()
	got, err := io.ReadAll(reader)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("read %d bytes of %d: %v", len(got), len(sent), err)
	}
	if err := reader.Drain(); err != nil {
		t.Errorf("drain after the end: %v", err)
	}
	if f, payload, err := wire.Read(); f != FrameRequest || string(payload) != "next" || err != nil {
		t.Errorf("after the stream: %q %q %v", f, payload, err)
	}
}

func TestDataStreamEndsOnlyWithItsEnd(t *testing.T) {
	var stream bytes.Buffer
	wire := NewWire(&stream, &stream)
	if _, err := wire.DataWriter().Write([]byte("part")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(wire.DataReader()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream without an end: %v", err)
	}
	if err := wire.Write(FrameRequest, nil); err != nil {
		t.Fatal(err)
	}
	if err := wire.DataReader().Drain(); err == nil || !strings.Contains(err.Error(), "in the middle of a stream") {
		t.Errorf("a request in a stream: %v", err)
	}
}

func FuzzWireRead(f *testing.F) {
	f.Add([]byte("d\x00\x00\x00\x02okd\x00\x00\x00\x00"))
	f.Add([]byte("r\x00\x00\x00\x0b{\"id\":1}   "))
	f.Add([]byte("h\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		wire := NewWire(bytes.NewReader(stream), nil)
		rest := len(stream)
		for {
			_, payload, err := wire.Read()
			if err != nil {
				break
			}
			if rest -= 5 + len(payload); rest < 0 || len(payload) > MaxFrame {
				t.Fatalf("a payload of %d bytes out of %d", len(payload), len(stream))
			}
		}
		got, _ := io.ReadAll(NewWire(bytes.NewReader(stream), nil).DataReader())
		if len(got) > len(stream) {
			t.Fatalf("a stream of %d bytes out of %d", len(got), len(stream))
		}
	})
}

// FuzzAnswer reads what a hostile agent may say.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("r\x00\x00\x00\x08{\"id\":1}"))
	f.Add([]byte("p\x00\x00\x00\x10{\"registered\":3}l\x00\x00\x00\x01xr\x00\x00\x00\x28{\"id\":1,\"error\":{\"text\":\"\\u001b[31m\"}}   "))
	f.Fuzz(func(t *testing.T, stream []byte) {
		s := &Session{wire: NewWire(bytes.NewReader(stream), nil)}
		response, err := s.answerTo(1, func(Progress) {}, io.Discard)
		if err == nil && response.ID != 1 {
			t.Fatalf("an answer to request %d", response.ID)
		}
		if err == nil && response.Error != nil && strings.ContainsAny(response.Error.Error(), "\x1b\n\r") {
			t.Fatalf("%q reaches the terminal", response.Error.Error())
		}
	})
}
