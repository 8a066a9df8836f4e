package nix

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// maxString is the longest string taken from the other side. Paths and signatures are much shorter.
	maxString = 32 << 10
	// maxPaths is the most entries taken in one list. The largest closures known have about 50 000 paths.
	maxPaths = 1 << 18
	// maxSignatures is the most signatures of one path.
	maxSignatures = 1 << 10
	// maxAnswer is the most bytes taken as one answer, so that lists in lists cannot fill the memory.
	maxAnswer = 256 << 20
)

// wireReader decodes Nix's wire format: 64-bit little-endian numbers, and strings padded with zeros to 8 bytes.
type wireReader struct {
	r    *bufio.Reader // holds at least maxString bytes
	left int           // bytes that the current answer may still have
}

func newWireReader(r io.Reader) *wireReader {
	return &wireReader{r: bufio.NewReaderSize(r, maxString+8), left: maxAnswer}
}

// take returns the next n bytes, valid until the next call. n is at most the size of the buffer, so nothing is allocated.
func (w *wireReader) take(n int) ([]byte, error) {
	if n > w.left {
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	b, err := w.r.Peek(n)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	w.left -= n
	_, err = w.r.Discard(n)
	return b, err
}

func (w *wireReader) number() (uint64, error) {
	b, err := w.take(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (w *wireReader) text() (string, error) {
	n, err := w.number()
	if err != nil {
		return "", err
	}
	if n > maxString {
		return "", fmt.Errorf("a string of %d bytes is longer than %d", n, maxString)
	}
	b, err := w.take(padded(int(n)))
	if err != nil {
		return "", err
	}
	for _, c := range b[n:] {
		if c != 0 {
			return "", errors.New("the padding of a string is not zero")
		}
	}
	return string(b[:n]), nil
}

func (w *wireReader) path() (StorePath, error) {
	s, err := w.text()
	if err != nil {
		return "", err
	}
	return ParseStorePath(s)
}

func (w *wireReader) count(most int) (int, error) {
	n, err := w.number()
	if err != nil {
		return 0, err
	}
	if n > uint64(most) {
		return 0, fmt.Errorf("a list of %d entries is longer than %d", n, most)
	}
	return int(n), nil
}

func (w *wireReader) paths(most int) ([]StorePath, error) {
	n, err := w.count(most)
	if err != nil {
		return nil, err
	}
	var paths []StorePath
	for range n {
		p, err := w.path()
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, nil
}

func (w *wireReader) texts(most int) ([]string, error) {
	n, err := w.count(most)
	if err != nil {
		return nil, err
	}
	var texts []string
	for range n {
		s, err := w.text()
		if err != nil {
			return nil, err
		}
		texts = append(texts, s)
	}
	return texts, nil
}

// wireWriter encodes Nix's wire format. Errors stick in the buffered writer and come out of its Flush.
type wireWriter struct{ w *bufio.Writer }

func newWireWriter(w io.Writer) wireWriter {
	// A writer that itself reads what it is to write, as a file does, would make an error of the reading its own: what has been read
	// before could not be written any more.
	return wireWriter{bufio.NewWriterSize(struct{ io.Writer }{w}, 64<<10)}
}

func (w wireWriter) number(n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	_, _ = w.w.Write(b[:])
}

func (w wireWriter) flag(b bool) {
	if b {
		w.number(1)
	} else {
		w.number(0)
	}
}

func (w wireWriter) text(s string) {
	var zeros [8]byte
	w.number(uint64(len(s)))
	_, _ = w.w.WriteString(s)
	_, _ = w.w.Write(zeros[:padded(len(s))-len(s)])
}

func (w wireWriter) paths(paths []StorePath) {
	w.number(uint64(len(paths)))
	for _, p := range paths {
		w.text(string(p))
	}
}

func (w wireWriter) texts(texts []string) {
	w.number(uint64(len(texts)))
	for _, s := range texts {
		w.text(s)
	}
}

// padded is n rounded up to a multiple of 8.
func padded(n int) int { return (n + 7) &^ 7 }
