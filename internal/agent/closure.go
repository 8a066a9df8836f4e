package agent

import (
	"context"
	"errors"

	"ferry/internal/nix"
)

// MethodClosure asks for the closure of Toplevel, and MethodUnits for the units that systemd knows. They need neither the lock nor
// root. Results: ClosureResult, UnitsResult.
const (
	MethodClosure Method = "closure"
	MethodUnits   Method = "units"
)

// ClosureResult is a closure on the target.
type ClosureResult struct {
	Paths []ClosurePath `json:"paths"`
}

// ClosurePath is a path of a closure.
type ClosurePath struct {
	Path nix.StorePath `json:"p"`
	Size uint64        `json:"s"` // of its NAR, in bytes
}

// Closure asks for the names and sizes of what the path p needs on the target.
func (s *Session) Closure(ctx context.Context, p nix.StorePath) (ClosureResult, error) {
	response, err := s.request(ctx, Request{Method: MethodClosure, Toplevel: p}, nil, nil, nil)
	if err != nil || response.Closure == nil {
		return ClosureResult{}, orMissing(err)
	}
	for _, entry := range response.Closure.Paths {
		if _, err := nix.ParseStorePath(string(entry.Path)); err != nil {
			return ClosureResult{}, errors.New("the agent names something that is no store path")
		}
	}
	return *response.Closure, nil
}

// UnitsResult is all that a switch goes by of what runs on a target.
type UnitsResult struct {
	Units []LoadedUnit `json:"units"`
	// Start, Restart and Reload are what a switch that was interrupted has left to do: the next one does it.
	Start   []string `json:"start,omitempty"`
	Restart []string `json:"restart,omitempty"`
	Reload  []string `json:"reload,omitempty"`
}

// LoadedUnit is a unit that systemd has loaded, under its first name.
type LoadedUnit struct {
	Name  string `json:"n"`
	State string `json:"s"` // active, inactive, failed, …
	// From is the file that it was loaded from; "": the one of its name in /etc/systemd/system, "-": none.
	From string `json:"f,omitempty"`
}

// Units asks for the units that systemd has loaded on the target. nil: that is not known there.
func (s *Session) Units(ctx context.Context) (*UnitsResult, error) {
	response, err := s.request(ctx, Request{Method: MethodUnits}, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	return response.Units, nil
}
