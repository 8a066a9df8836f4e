package flake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"ferry/internal/nix"
)

// lockVersion is the version of flake.lock that the reader knows.
const lockVersion = 7

// Lock is what a flake.lock says.
type Lock struct {
	Nodes   map[string]LockNode `json:"nodes"`
	Root    string              `json:"root"`
	Version int                 `json:"version"`
}

// LockNode is a flake or a tree that others are made from. The attributes are Nix's; a number is a [json.Number].
type LockNode struct {
	Flake *bool `json:"flake,omitempty"` // false: it is only a tree
	// Inputs are keys of nodes, or lists of names that lead to one from the root.
	Inputs   map[string]any `json:"inputs,omitempty"`
	Locked   map[string]any `json:"locked,omitempty"` // nil for the root
	Original map[string]any `json:"original,omitempty"`
	// Parent leads from the root to the flake whose tree a relative input is in.
	Parent *[]string `json:"parent,omitempty"`
}

// LockError is a flake.lock that cannot be read here.
type LockError struct {
	Text   string
	Advice []string
}

func (e *LockError) Error() string { return "flake.lock: " + e.Text }

// Hints says what the user can do about it.
func (e *LockError) Hints() []string { return e.Advice }

// decode reads JSON and keeps numbers as they are.
func decode(text []byte, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(to)
}

// check makes sure that the reader can follow l.
func (l Lock) check() error {
	if l.Version != lockVersion {
		return &LockError{Text: fmt.Sprintf("its version is %d, and ferry knows version %d", l.Version, lockVersion),
			Advice: []string{"a newer ferry may know it; or lock it again with an older Nix: nix flake lock"}}
	}
	if _, is := l.Nodes[l.Root]; !is {
		return &LockError{Text: fmt.Sprintf("it has no node %q, which it calls its root", l.Root)}
	}
	for key, node := range l.Nodes {
		if key != l.Root && node.Locked == nil {
			return &LockError{Text: fmt.Sprintf("its node %q is not locked", key), Advice: []string{"nix flake lock"}}
		}
		if node.relative() && node.Parent == nil {
			return &LockError{Text: fmt.Sprintf("its node %q is a relative path, and it does not say of what", key),
				Advice: []string{"lock it again with Nix 2.26 or later: nix flake update"}}
		}
	}
	return nil
}

// text is an attribute of what is locked.
func (n LockNode) text(name string) string {
	s, _ := n.Locked[name].(string)
	return s
}

// relative tells whether the node is in its parent's tree.
func (n LockNode) relative() bool {
	return n.Locked != nil && n.text("type") == "path" && !strings.HasPrefix(n.text("path"), "/")
}

// path is where the node's tree is in the store, if it is there; "" if its lock does not say.
func (n LockNode) path() nix.StorePath {
	p, err := nix.FetchedPath(n.text("narHash"))
	if err != nil {
		return ""
	}
	return p
}
