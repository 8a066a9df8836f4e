package agent

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"strings"
)

//go:embed all:embedded
var embedded embed.FS

// Program is one embedded ferry-agent.
type Program struct {
	Machine string // as uname -m says it
	Hash    string // sha256 of the program, base 16

	size int64
}

// ErrNotEmbedded says that this ferry was built without agents.
var ErrNotEmbedded = errors.New("this ferry was built without its agents; `make build` embeds them")

// Programs lists the embedded agents.
func Programs() ([]Program, error) {
	index, err := embedded.ReadFile("embedded/index")
	if err != nil {
		return nil, ErrNotEmbedded
	}
	var list []Program
	for line := range strings.Lines(string(index)) {
		var p Program
		if _, err := fmt.Sscanf(line, "%s %s %d", &p.Machine, &p.Hash, &p.size); err != nil {
			return nil, fmt.Errorf("index of the embedded agents: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// ProgramFor gives the agent for a Nix system such as aarch64-linux.
func ProgramFor(system string) (Program, error) {
	list, err := Programs()
	if err != nil {
		return Program{}, err
	}
	machine, _, _ := strings.Cut(system, "-")
	for _, p := range list {
		if p.Machine == machine {
			return p, nil
		}
	}
	return Program{}, fmt.Errorf("ferry has no agent for %s", system)
}

// Compressed is the program as gzip packed it.
func (p Program) Compressed() ([]byte, error) {
	return embedded.ReadFile("embedded/agent-" + p.Machine + ".gz")
}

// Bytes is the program itself.
func (p Program) Bytes() ([]byte, error) {
	packed, err := p.Compressed()
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("embedded agent for %s: %w", p.Machine, err)
	}
	return io.ReadAll(r)
}
