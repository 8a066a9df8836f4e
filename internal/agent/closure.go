package agent

import (
	"context"
	"errors"

	"ferry/internal/nix"
)

// MethodClosure asks for the closure of Toplevel, and MethodUnits for the units that are active. They need neither the lock nor
// root. Results: ClosureResult, Units.
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

// Units asks for the names of the units that are active on the target, or about to be. nil: that is not known there.
func (s *Session) Units(ctx context.Context) ([]string, error) {
	response, err := s.request(ctx, Request{Method: MethodUnits}, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	return response.Units, nil
}
