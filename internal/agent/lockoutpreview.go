package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"ferry/internal/nix"

	"github.com/klauspost/compress/zstd"
)

// StoreFile is what is at a path of a system that has not been shipped yet, for MethodInspect.
type StoreFile struct {
	Path string   `json:"path"` // below a store path, without links on the way
	Kind FileKind `json:"kind"`
	// Text is the content of a file, or where a link leads; Names are those in a folder.
	Text  []byte   `json:"text,omitempty"`
	Names []string `json:"names,omitempty"`
}

// FileKind is what a StoreFile is.
type FileKind string

// The kinds.
const (
	KindFile   FileKind = "file"
	KindLink   FileKind = "link"
	KindFolder FileKind = "folder"
	KindAbsent FileKind = "absent"
	KindUntold FileKind = "untold" // it is there, and too large to be told
)

const (
	// MaxForeseenFile is how long a file may be that is told, and MaxForeseen how much all of them, in bytes: the agent holds them.
	MaxForeseenFile = 1 << 20
	MaxForeseen     = 8 << 20
	// MaxWanted is how many files are asked for at once.
	MaxWanted = 2000
	// maxForeseenNames is how many names of a folder are told, and maxLinks how many links are followed.
	maxForeseenNames = 20000
	maxLinks         = 40
	// maxForesights is how many times the agent may ask: each time it knows more of what it has to look at.
	maxForesights = 16
)

// PreviewLockout is CheckLockout for a toplevel that has not been shipped: the agent asks for the files that it wants to see, and files tells
// them. unsure is what it could not find out. elevate is the program that would make root of the login user, where the agent runs without it.
func (s *Session) PreviewLockout(ctx context.Context, toplevel nix.StorePath, elevate string, files *StoreFiles) (risks []Risk, unsure []string, err error) {
	var told []StoreFile
	for range maxForesights {
		request := Request{Method: MethodInspect, Toplevel: toplevel, Ahead: true, Elevate: elevate}
		response, err := s.request(ctx, request, func(w io.Writer) error { return writeStoreFiles(w, told) }, nil, nil)
		if err != nil {
			return nil, nil, err
		}
		if len(response.Wanted) == 0 {
			return response.Risks, response.Unsure, nil
		}
		before := len(told)
		for _, p := range response.Wanted {
			told = append(told, files.Tell(string(p))...)
		}
		if len(told) == before {
			break
		}
	}
	return nil, nil, fmt.Errorf("the agent on %s asks for files that cannot be told", s.address)
}

func writeStoreFiles(w io.Writer, files []StoreFile) error {
	z, err := zstd.NewWriter(w, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(z)
	for _, f := range files {
		if err := encoder.Encode(f); err != nil {
			return err
		}
	}
	return z.Close()
}

// StoreFiles tells files of this machine's store, each once: only of paths that the target is to have in any case.
type StoreFiles struct {
	root   string // "" but in tests
	within func(nix.StorePath) bool
	told   map[string]bool
	bytes  int
}

// NewStoreFiles tells files of the paths for which within holds.
func NewStoreFiles(within func(nix.StorePath) bool) *StoreFiles {
	return &StoreFiles{within: within, told: map[string]bool{}}
}

// Below is f for a store below another root than this machine's.
func (f *StoreFiles) Below(root string) *StoreFiles {
	f.root = root
	return f
}

// Tell gives what is at p and at each step of the way there, as far as that was not told before.
func (f *StoreFiles) Tell(p string) []StoreFile {
	var told []StoreFile
	done, rest, links := "/", strings.Split(p, "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, name)
		if next == "/nix" || next == "/nix/store" {
			done = next
			continue
		}
		if !f.mayTell(next) {
			break
		}
		file, to := f.at(next)
		if !f.told[next] {
			f.told[next] = true
			told = append(told, file)
		}
		switch file.Kind {
		case KindFolder:
			done = next
		case KindLink:
			if links++; links > maxLinks {
				return told
			}
			if path.IsAbs(to) {
				done = "/"
			}
			rest = append(strings.Split(to, "/"), rest...)
		default:
			return told
		}
	}
	return told
}

// mayTell tells whether p is, or is in, a store path that may be told.
func (f *StoreFiles) mayTell(p string) bool {
	below, is := strings.CutPrefix(p, "/nix/store/")
	base, _, _ := strings.Cut(below, "/")
	storePath, err := nix.ParseStorePath("/nix/store/" + base)
	return is && err == nil && f.within(storePath)
}

// at gives what is at a path that has no links on the way, and where a link leads.
func (f *StoreFiles) at(p string) (file StoreFile, to string) {
	file = StoreFile{Path: p, Kind: KindUntold}
	info, err := os.Lstat(f.root + p)
	switch {
	case errors.Is(err, os.ErrNotExist):
		file.Kind = KindAbsent
	case err != nil:
	case info.Mode()&os.ModeSymlink != 0:
		if to, err = os.Readlink(f.root + p); err == nil {
			file.Kind, file.Text = KindLink, []byte(to)
		}
	case info.IsDir():
		file.Kind = KindFolder
		if entries, err := os.ReadDir(f.root + p); err == nil && len(entries) <= maxForeseenNames {
			for _, e := range entries {
				file.Names = append(file.Names, e.Name())
				f.bytes += len(e.Name())
			}
		} else {
			file.Kind = KindUntold
		}
	case info.Mode().IsRegular() && info.Size() <= MaxForeseenFile:
		if f.told[p] {
			return file, ""
		}
		if text, err := os.ReadFile(f.root + p); err == nil && f.bytes+len(text) <= MaxForeseen {
			f.bytes += len(text)
			file.Kind, file.Text = KindFile, text
		}
	}
	return file, to
}
