package ship

import (
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"
)

// stored is the level at which nothing is compressed. The library has none.
const stored zstd.EncoderLevel = 0

// storedFrame is a zstd frame (RFC 8878) of raw blocks: what is written is only copied.
type storedFrame struct {
	w     io.Writer
	begun bool
	block []byte // room for the block's header, then what it holds so far
}

const (
	// storedBlock is the largest block that zstd allows, in bytes, and the frame's window.
	storedBlock  = 128 << 10
	storedHeader = 3
)

// storedStart is the magic number, a descriptor without content size, checksum and dictionary, and the window of storedBlock:
// 1 KiB shifted by 7, which stands in the upper five bits.
var storedStart = [...]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3}

// Write adds p to the frame.
func (s *storedFrame) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if s.block == nil {
			s.block = make([]byte, storedHeader, storedHeader+storedBlock)
		}
		n := min(len(p), cap(s.block)-len(s.block))
		s.block = append(s.block, p[:n]...)
		if len(s.block) == cap(s.block) {
			if err := s.send(false); err != nil {
				return written, err
			}
		}
		written, p = written+n, p[n:]
	}
	return written, nil
}

// Flush sends what has been written.
func (s *storedFrame) Flush() error {
	if len(s.block) <= storedHeader {
		return nil
	}
	return s.send(false)
}

// Close ends the frame.
func (s *storedFrame) Close() error {
	if s.block == nil {
		s.block = make([]byte, storedHeader)
	}
	return s.send(true)
}

// send writes the block; last says that no other follows.
func (s *storedFrame) send(last bool) error {
	if !s.begun {
		if _, err := s.w.Write(storedStart[:]); err != nil {
			return err
		}
		s.begun = true
	}
	// Of three bytes, little endian: the lowest bit is last, the next two are the block's type, raw is 0.
	head := uint32(len(s.block)-storedHeader) << 3
	if last {
		head |= 1
	}
	var number [4]byte
	binary.LittleEndian.PutUint32(number[:], head)
	copy(s.block, number[:storedHeader])
	_, err := s.w.Write(s.block)
	s.block = s.block[:storedHeader]
	return err
}
