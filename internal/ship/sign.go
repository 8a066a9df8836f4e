package ship

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"
)

// Signer is a target that tells what it has, where this machine does not have that; agent.Session is one.
type Signer interface {
	Closure(ctx context.Context, p nix.StorePath) (agent.ClosureResult, error)
	Signatures(ctx context.Context, paths []nix.StorePath, read func(r *bufio.Reader) error) error
}

const (
	// worthSigning is how many bytes there have to be to send, in paths that may be like old ones: below, asking costs more than
	// it saves.
	worthSigning = 2 << 20
	// smallestSigned is the size in bytes of a NAR from which on it is compared by signature.
	smallestSigned = 16 << 10
	// mostSigned bounds the old paths that are signed, in bytes of their NARs: the target reads and hashes them.
	mostSigned = 8 << 30
	// signedMemory is how much memory the signatures of a ship may take, in bytes. Those of a few GB of small files fit.
	signedMemory = 64 << 20
)

// Sign asks the target for the signatures of what is likely to be like the plan's missing paths: where the target runs what this
// machine does not have, somebody else having deployed it, differences are made from those. of are the paths whose closures the
// target has. Where it is not worth it nothing is asked.
func (p *Plan) Sign(ctx context.Context, to Signer, of []nix.StorePath) error {
	if len(p.Known) > 0 || p.Bytes < worthSigning {
		return nil
	}
	var old []nix.PathInfo
	seen := map[nix.StorePath]bool{}
	for _, root := range of {
		if seen[root] {
			continue
		}
		closure, err := to.Closure(ctx, root)
		if err != nil {
			return fmt.Errorf("ask what the target has: %w", err)
		}
		for _, c := range closure.Paths {
			if !seen[c.Path] {
				seen[c.Path] = true
				old = append(old, nix.PathInfo{Path: c.Path, NarSize: c.Size})
			}
		}
	}
	pairs := newPairs(old)
	paths, worth := p.toSign(old, pairs)
	if worth < worthSigning {
		return nil
	}
	p.Signed, p.pairs = make(map[nix.StorePath]*delta.Signature, len(paths)), pairs
	return to.Signatures(ctx, paths, func(r *bufio.Reader) error {
		room := &delta.Room{Bytes: signedMemory}
		for _, path := range paths {
			signature, err := delta.ReadSignature(ctx, r, path, room)
			if errors.Is(err, delta.ErrNoRoom) {
				// What was read before is of use.
				return nil
			}
			if err != nil {
				return fmt.Errorf("signature of %s: %w", path, err)
			}
			if signature != nil {
				p.Signed[path] = signature
			}
		}
		return nil
	})
}

// toSign are the old paths whose signatures are of use, and how many bytes are missing that may be like them.
func (p *Plan) toSign(old []nix.PathInfo, pairs *pairs) (paths []nix.StorePath, worth uint64) {
	sizes := make(map[nix.StorePath]uint64, len(old))
	for _, info := range old {
		sizes[info.Path] = info.NarSize
	}
	asked, total := map[nix.StorePath]bool{}, uint64(0)
	for _, info := range p.Missing {
		bases := pairs.of(info)
		if len(bases) == 0 || info.NarSize < smallestSigned || p.Whole[info.Path] {
			continue
		}
		worth += info.NarSize
		for _, base := range bases {
			if asked[base] || sizes[base] > mostSigned-total {
				continue
			}
			asked[base], total = true, total+sizes[base]
			paths = append(paths, base)
		}
	}
	return paths, worth
}

// signaturesFor are the signatures that a path is compared with.
func (p *Plan) signaturesFor(info nix.PathInfo) []*delta.Signature {
	if p.pairs == nil || info.NarSize < smallestSigned {
		return nil
	}
	var signed []*delta.Signature
	for _, base := range p.pairs.of(info) {
		if s := p.Signed[base]; s != nil {
			signed = append(signed, s)
		}
	}
	return signed
}

// pairSigned finds by signatures what a parcel's path is made from.
func (p *parcel) pairSigned(ctx context.Context, signed []*delta.Signature) {
	if next := p.open(ctx); next != nil {
		p.take(p.cut(delta.NewSignedEncoder(next, signed)))
	}
}

var _ Signer = (*agent.Session)(nil)
