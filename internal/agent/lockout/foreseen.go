package lockout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
)

// Foreseen are files of a system that has not arrived yet, as ferry tells them.
type Foreseen struct {
	root  machine.Root
	files map[string]agent.StoreFile
	// Wanted is what else of it is to be looked at.
	Wanted []string
}

// ReadForeseen reads them as JSON.
func ReadForeseen(r machine.Root, in io.Reader) (*Foreseen, error) {
	a := &Foreseen{root: r, files: map[string]agent.StoreFile{}}
	// Base64 and names take more than what is counted.
	limited := &io.LimitedReader{R: in, N: 3 * agent.MaxForeseen}
	for decoder := json.NewDecoder(limited); ; {
		var f agent.StoreFile
		err := decoder.Decode(&f)
		if errors.Is(err, io.EOF) && limited.N > 0 {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("files of the new system: %w", err)
		}
		a.files[f.Path] = f
	}
	return a, nil
}

// kinds are the words of the protocol for what a file is. One that is not among them is there and is not told.
var kinds = map[agent.FileKind]machine.FileKind{
	agent.KindAbsent: machine.KindAbsent, agent.KindFile: machine.KindFile, agent.KindFolder: machine.KindFolder, agent.KindLink: machine.KindLink,
}

// at gives the file at p, which has no links on the way; known is false where that is for this machine to say: p is in no store
// path, or in one that is here. One that is not told yet is wanted, and with it what rest leads to from there.
func (f *Foreseen) at(p string, rest []string) (entry machine.Entry, known bool) {
	below, is := strings.CutPrefix(p, machine.StoreFolder+"/")
	base, _, _ := strings.Cut(below, "/")
	storePath, err := nix.ParseStorePath(machine.StoreFolder + "/" + base)
	if !is || err != nil {
		return entry, false
	}
	if told, is := f.files[p]; is {
		return machine.Entry{Kind: kinds[told.Kind], Text: string(told.Text), Names: told.Names}, true
	}
	if _, err := os.Lstat(f.root.Path(string(storePath))); !os.IsNotExist(err) {
		return entry, false
	}
	whole := strings.Join(append([]string{p}, rest...), "/")
	if len(whole) > maxWantedPath {
		return machine.Entry{Kind: machine.KindUnknown}, true
	}
	// What is too much for one round is asked for in the next.
	if len(f.Wanted) < agent.MaxWanted && !slices.Contains(f.Wanted, whole) {
		f.Wanted = append(f.Wanted, whole)
	}
	return machine.Entry{Kind: machine.KindAwaited}, true
}

// maxWantedPath is how long a path may be that is asked for: all of them have to fit into a frame.
const maxWantedPath = 400
