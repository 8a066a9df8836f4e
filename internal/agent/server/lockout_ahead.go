package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// ahead are files of a system that has not arrived yet, as ferry tells them. What else of it is to be looked at is noted.
type ahead struct {
	root   root
	files  map[string]agent.StoreFile
	wanted []string
}

// readAhead reads the stream of an inspection: zstd of files as JSON.
func readAhead(r root, stream *agent.DataReader) (*ahead, error) {
	a := &ahead{root: r, files: map[string]agent.StoreFile{}}
	z, err := newDecoder(stream)
	if err != nil {
		return nil, &streamError{err}
	}
	defer z.Close()
	// Base64 and names take more than what is counted.
	limited := &io.LimitedReader{R: z, N: 3 * agent.MaxForeseen}
	for decoder := json.NewDecoder(limited); ; {
		var f agent.StoreFile
		err := decoder.Decode(&f)
		if errors.Is(err, io.EOF) && limited.N > 0 {
			break
		}
		if err != nil {
			return nil, &streamError{fmt.Errorf("files of the new system: %w", err)}
		}
		a.files[f.Path] = f
	}
	if err := stream.Drain(); err != nil {
		return nil, &streamError{err}
	}
	return a, nil
}

// kindAwaited is what a file is that ferry is asked for.
const kindAwaited agent.FileKind = "awaited"

// at gives the file at p, which has no links on the way; known is false where that is for this machine to say: p is in no store
// path, or in one that is here. One that is not told yet is wanted, and with it what rest leads to from there.
func (a *ahead) at(p string, rest []string) (f agent.StoreFile, known bool) {
	if a == nil {
		return f, false
	}
	below, is := strings.CutPrefix(p, storeFolder+"/")
	base, _, _ := strings.Cut(below, "/")
	storePath, err := nix.ParseStorePath(storeFolder + "/" + base)
	if !is || err != nil {
		return f, false
	}
	if f, told := a.files[p]; told {
		return f, true
	}
	if _, err := os.Lstat(a.root.path(string(storePath))); !os.IsNotExist(err) {
		return f, false
	}
	whole := strings.Join(append([]string{p}, rest...), "/")
	if len(whole) > maxWantedPath {
		return agent.StoreFile{Path: p, Kind: agent.KindUntold}, true
	}
	// What is too much for one round is asked for in the next.
	if len(a.wanted) < agent.MaxWanted && !slices.Contains(a.wanted, whole) {
		a.wanted = append(a.wanted, whole)
	}
	return agent.StoreFile{Path: p, Kind: kindAwaited}, true
}

// maxWantedPath is how long a path may be that is asked for: all of them have to fit into a frame.
const maxWantedPath = 400

// lstat tells what is at next, where it leads if it is a link, and whether it is there.
func (f *inspectedFiles) lstat(next string, rest []string) (to string, isLink bool, found presence) {
	if told, known := f.ahead.at(next, rest); known {
		switch told.Kind {
		case agent.KindAbsent:
			return "", false, absent
		case agent.KindLink:
			return string(told.Text), true, present
		case agent.KindFile, agent.KindFolder:
			return "", false, present
		case kindAwaited:
			return "", false, awaited
		}
		return "", false, unreadable
	}
	info, err := os.Lstat(f.root.path(next))
	switch {
	case os.IsNotExist(err):
		return "", false, absent
	case err != nil:
		return "", false, unreadable
	case info.Mode()&os.ModeSymlink == 0:
		return "", false, present
	}
	if to, err = os.Readlink(f.root.path(next)); err != nil {
		return "", true, unreadable
	}
	return to, true, present
}

// told gives a file that ferry has told by its path without links.
func (f *inspectedFiles) told(resolved string, kind agent.FileKind) (agent.StoreFile, presence, bool) {
	file, known := f.ahead.at(path.Clean(resolved), nil)
	if !known {
		return file, absent, false
	}
	switch file.Kind {
	case kind:
		return file, present, true
	case kindAwaited:
		return agent.StoreFile{}, present, true
	}
	return file, unreadable, true
}
