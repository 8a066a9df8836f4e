package nix

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	serveHello   = 0x390c9deb
	serveAnswer  = 0x5452eecb
	serveMajor   = 2
	serveMinor   = 7 // what is asked for; nothing that is used here changed in 2.8
	serveMinimum = 5 // the first with AddToStoreNar, Nix 2.1
)

// The commands of the serve protocol that are used.
const (
	serveQueryValidPaths = 1
	serveQueryPathInfos  = 2
	serveQueryClosure    = 7
	serveAddToStoreNar   = 9
)

// ErrTooOld means that the nix-store at the other end lacks what is asked of it.
var ErrTooOld = errors.New("the other side's nix-store is too old")

// PathInfo is what Nix knows of a valid path.
type PathInfo struct {
	Path       StorePath
	Deriver    StorePath // "" if unknown
	NarHash    string    // "sha256:<base 16>"
	NarSize    uint64    // bytes
	References []StorePath
	Registered int64 // seconds since 1970; the serve protocol does not tell it, 0 makes the receiver take its own time
	Ultimate   bool  // built by the store that says so; not told by the serve protocol
	Signatures []string
	CA         string // how a content-addressed path is addressed, "" for others
}

// Serve is the client's side of the protocol that nix-store --serve speaks, over any pair of streams. Every answer is
// checked before it is given on. After an error other than [ErrTooOld] the connection is of no more use; the caller, who
// owns the streams, closes them.
//
// A Serve is for one goroutine, except that [Serve.ReadAck] may run beside [Serve.SendPath] and [Serve.Flush].
type Serve struct {
	in           *wireReader
	out          wireWriter
	major, minor int
}

// NewServe greets the other side. It waits for the answer.
func NewServe(r io.Reader, w io.Writer) (*Serve, error) {
	s := &Serve{in: newWireReader(r), out: newWireWriter(w)}
	s.out.number(serveHello)
	s.out.number(serveMajor<<8 | serveMinor)
	if err := s.out.w.Flush(); err != nil {
		return nil, fmt.Errorf("greet nix-store --serve: %w", err)
	}
	said, _ := s.in.r.Peek(8)
	magic, err := s.in.number()
	if err != nil {
		if len(said) > 0 {
			return nil, fmt.Errorf("greet nix-store --serve: it says %q: %w", said, err)
		}
		return nil, fmt.Errorf("greet nix-store --serve: %w", err)
	}
	if magic != serveAnswer {
		// Usually a message for people, such as what a login script prints; as much as has come makes it recognisable.
		rest, _ := s.in.r.Peek(min(s.in.r.Buffered(), 200))
		var first [8]byte
		for i := range first {
			first[i] = byte(magic >> (8 * i))
		}
		return nil, fmt.Errorf("greet nix-store --serve: it says %q, not the serve protocol", append(first[:], rest...))
	}
	version, err := s.in.number()
	if err != nil {
		return nil, fmt.Errorf("greet nix-store --serve: %w", err)
	}
	if version > 0xffff || version>>8 != serveMajor {
		return nil, fmt.Errorf("greet nix-store --serve: its protocol version %#x is unknown", version)
	}
	s.major, s.minor = int(version>>8), int(version&0xff)
	return s, nil
}

// ContinueServe goes on with a connection that somebody else has greeted, and whose answers have all been read; see
// [Serve.SendRest]. minor is what its Version was.
func ContinueServe(r io.Reader, w io.Writer, minor int) *Serve {
	return &Serve{in: newWireReader(r), out: newWireWriter(w), major: serveMajor, minor: minor}
}

// Version is the protocol version of the other side; what is spoken is never newer than 2.7.
func (s *Serve) Version() (major, minor int) { return s.major, s.minor }

// ValidPaths returns those of paths that are valid at the other side. With lock they cannot be collected as garbage
// as long as the connection lives, valid or not; with substitute the other side first fetches what it can from its
// substituters. Both need nix-store --serve --write.
func (s *Serve) ValidPaths(paths []StorePath, lock, substitute bool) ([]StorePath, error) {
	s.out.number(serveQueryValidPaths)
	s.out.flag(lock)
	s.out.flag(substitute)
	s.out.paths(paths)
	valid, err := s.ask(func() ([]StorePath, error) { return s.in.paths(len(paths)) })
	if err != nil {
		return nil, fmt.Errorf("query valid paths: %w", err)
	}
	asked := setOf(paths)
	for _, p := range valid {
		if !asked[p] {
			return nil, fmt.Errorf("query valid paths: %s was not asked for or is named twice", p)
		}
		asked[p] = false
	}
	return valid, nil
}

// Closure returns the closure of paths, which must be valid.
func (s *Serve) Closure(paths []StorePath) ([]StorePath, error) {
	s.out.number(serveQueryClosure)
	s.out.flag(false)
	s.out.paths(paths)
	closure, err := s.ask(func() ([]StorePath, error) { return s.in.paths(maxPaths) })
	if err != nil {
		return nil, fmt.Errorf("query closure: %w", err)
	}
	return closure, nil
}

// PathInfos returns what the other side knows of paths, in its order; paths that are not valid there are left out.
func (s *Serve) PathInfos(paths []StorePath) ([]PathInfo, error) {
	s.out.number(serveQueryPathInfos)
	s.out.paths(paths)
	if err := s.Flush(); err != nil {
		return nil, fmt.Errorf("query path infos: %w", err)
	}
	s.in.left = maxAnswer
	asked := setOf(paths)
	var infos []PathInfo
	for {
		name, err := s.in.text()
		if err != nil {
			return nil, fmt.Errorf("query path infos: %w", err)
		}
		if name == "" {
			return infos, nil
		}
		info, err := s.readInfo(name)
		if err != nil {
			return nil, fmt.Errorf("query path infos: %w", err)
		}
		if !asked[info.Path] {
			return nil, fmt.Errorf("query path infos: %s was not asked for or is named twice", info.Path)
		}
		asked[info.Path] = false
		infos = append(infos, info)
	}
}

func (s *Serve) readInfo(name string) (info PathInfo, err error) {
	if info.Path, err = ParseStorePath(name); err != nil {
		return info, err
	}
	deriver, err := s.in.text()
	if err != nil {
		return info, err
	}
	if deriver != "" {
		if info.Deriver, err = ParseStorePath(deriver); err != nil {
			return info, err
		}
	}
	if info.References, err = s.in.paths(maxPaths); err != nil {
		return info, err
	}
	if _, err = s.in.number(); err != nil { // the size of a download, which is not known
		return info, err
	}
	if info.NarSize, err = s.in.number(); err != nil {
		return info, err
	}
	hash, err := s.in.text()
	if err != nil {
		return info, err
	}
	sum, err := ParseNarHash(hash)
	if err != nil {
		return info, err
	}
	info.NarHash = NarHashOf(sum)
	if info.CA, err = s.in.text(); err != nil {
		return info, err
	}
	info.Signatures, err = s.in.texts(maxSignatures)
	return info, err
}

// SendPath writes the command that registers a path: info, then exactly info.NarSize bytes read from nar. It does not
// wait for the other side, which answers each path in turn; see [Serve.ReadAck] and [Serve.Flush]. The references of the
// path must be valid at the other side or have been sent before. A path that is already valid there is taken and ignored.
func (s *Serve) SendPath(info PathInfo, nar io.Reader) error {
	return s.SendNar(info, func(w io.Writer) error {
		_, err := io.CopyN(w, nar, int64(info.NarSize))
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

// SendNar is SendPath with a NAR that write writes: exactly info.NarSize bytes.
func (s *Serve) SendNar(info PathInfo, write func(io.Writer) error) error {
	if s.minor < serveMinimum {
		return ErrTooOld
	}
	if info.NarSize == 0 || info.NarSize > math.MaxInt64 {
		return fmt.Errorf("send %s: %d bytes cannot be the size of its NAR", info.Path, info.NarSize)
	}
	sum, err := ParseNarHash(info.NarHash)
	if err != nil {
		return fmt.Errorf("send %s: %w", info.Path, err)
	}
	s.out.number(serveAddToStoreNar)
	s.out.text(string(info.Path))
	s.out.text(string(info.Deriver))
	s.out.text(hex.EncodeToString(sum[:]))
	s.out.paths(info.References)
	s.out.number(uint64(info.Registered))
	s.out.number(info.NarSize)
	s.out.flag(info.Ultimate)
	s.out.texts(info.Signatures)
	s.out.text(info.CA)
	return s.SendRest(info, 0, write)
}

// SendRest goes on with a path of which from bytes of the NAR have been sent before: write writes the rest.
func (s *Serve) SendRest(info PathInfo, from uint64, write func(io.Writer) error) error {
	if from > info.NarSize {
		return fmt.Errorf("send %s: %d of its %d bytes cannot have been sent", info.Path, from, info.NarSize)
	}
	out := &narCounter{w: s.out.w, left: info.NarSize - from}
	err := write(out)
	if err == nil && out.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return &BrokenOffError{Path: info.Path, Sent: info.NarSize - out.left, Size: info.NarSize, Err: err}
	}
	return nil
}

// BrokenOffError is a NAR that was not sent to its end. What Sent says has been taken, and once it is flushed, the rest may follow.
type BrokenOffError struct {
	Path       StorePath
	Sent, Size uint64 // bytes
	Err        error
}

func (e *BrokenOffError) Error() string {
	return fmt.Sprintf("send %s: after %d of %d bytes: %v", e.Path, e.Sent, e.Size, e.Err)
}

// Unwrap gives why.
func (e *BrokenOffError) Unwrap() error { return e.Err }

// narCounter lets no more of a NAR through than was announced: what came after would be read as a command.
type narCounter struct {
	w    *bufio.Writer
	left uint64
}

func (c *narCounter) Write(p []byte) (int, error) {
	if uint64(len(p)) > c.left {
		return 0, errors.New("the NAR is larger than it was said to be")
	}
	n, err := c.w.Write(p)
	c.left -= uint64(n)
	return n, err
}

// ReadFrom lets io.Copy read right into the buffer.
func (c *narCounter) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.w.ReadFrom(io.LimitReader(r, int64(c.left)))
	c.left -= uint64(n)
	return n, err
}

// Flush writes out what [Serve.SendPath] has buffered.
func (s *Serve) Flush() error { return s.out.w.Flush() }

// ReadAck waits until the other side has registered the next of the paths sent. When it fails to register one, nix-store
// writes why to its standard error and ends; that is an error that wraps [io.ErrUnexpectedEOF].
func (s *Serve) ReadAck() error {
	s.in.left = maxAnswer
	n, err := s.in.number()
	if err != nil {
		return fmt.Errorf("wait for a path to be registered: %w", err)
	}
	if n != 1 {
		return fmt.Errorf("wait for a path to be registered: the answer is %d, not 1", n)
	}
	return nil
}

func (s *Serve) ask(answer func() ([]StorePath, error)) ([]StorePath, error) {
	if err := s.Flush(); err != nil {
		return nil, err
	}
	s.in.left = maxAnswer
	return answer()
}

func setOf(paths []StorePath) map[StorePath]bool {
	set := make(map[StorePath]bool, len(paths))
	for _, p := range paths {
		set[p] = true
	}
	return set
}
