package agent

import (
	"context"
	"io"

	"ferry/internal/nix"
)

const (
	// MethodOnDisk compares the closure of Toplevel, as the target's Nix knows it, with what is on the target's disk: whether
	// each path is there, and with Contents, whether it is what Nix has registered. It needs neither the lock nor root; with the
	// lock what a power cut may have made empty is read as well. Result: OnDiskResult.
	MethodOnDisk Method = "on-disk"
	// MethodRestore brings paths that the target's Nix has and its disk has not, or not whole after a power cut. Their
	// registration stays as it is. Stream: see ShipHeader, each path whole. Result: ShipResult.
	MethodRestore Method = "restore"
)

// OnDiskResult is what of a closure is not on the disk as it should be.
type OnDiskResult struct {
	Paths int         `json:"paths"` // in the closure
	Wrong []WrongPath `json:"wrong,omitempty"`
	More  int         `json:"more,omitempty"` // how many are wrong besides those in Wrong
	// Doubted is how many were read because they came in a ship that a power cut has ended.
	Doubted int `json:"doubted,omitempty"`
}

// WrongPath is a valid path that is not on the disk, or not as Nix has registered it.
type WrongPath struct {
	Path    nix.StorePath `json:"path"`
	NarHash string        `json:"nar_hash" is:"short"` // as registered
	// Gone says that nothing is there; else Reason says what is wrong.
	Gone   bool   `json:"gone,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// OnDisk asks what of the closure of p, which must be valid on the target, is not on the disk there: paths that are gone, and
// with contents, those that are not what was registered as well, which reads all of them.
func (s *Session) OnDisk(ctx context.Context, p nix.StorePath, contents bool) (OnDiskResult, error) {
	response, err := s.request(ctx, Request{Method: MethodOnDisk, Toplevel: p, Contents: contents}, nil, nil, nil)
	if err != nil || response.OnDisk == nil {
		return OnDiskResult{}, orMissing(err)
	}
	return *response.OnDisk, nil
}

// Restore sends the stream that send writes, and gives how many of its paths are on the target's disk now.
func (s *Session) Restore(ctx context.Context, send func(io.Writer) error) (int, error) {
	response, err := s.request(ctx, Request{Method: MethodRestore}, send, nil, nil)
	if err != nil || response.Ship == nil {
		return 0, orMissing(err)
	}
	return response.Ship.Registered, nil
}
