package receive

import (
	"fmt"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// maxClosureSize is how long a closure may be as JSON, in bytes: it is one frame.
const maxClosureSize = 900 << 10

// Closure tells the names and sizes of what a path needs.
func (s *Receiver) Closure(p nix.StorePath) (*agent.ClosureResult, error) {
	infos, err := s.closureInfos(p)
	if err != nil {
		return nil, err
	}
	result, size := &agent.ClosureResult{Paths: make([]agent.ClosurePath, 0, len(infos))}, 0
	for _, info := range infos {
		if size += len(info.Path) + len(`{"p":"","s":18446744073709551615},`); size > maxClosureSize {
			return nil, fmt.Errorf("the closure of %s has too many paths to be told: %d", p, len(infos))
		}
		result.Paths = append(result.Paths, agent.ClosurePath{Path: info.Path, Size: info.NarSize})
	}
	return result, nil
}

// closureInfos is what Nix knows of all that a path needs.
func (s *Receiver) closureInfos(p nix.StorePath) ([]nix.PathInfo, error) {
	if _, err := nix.ParseStorePath(string(p)); err != nil {
		return nil, &agent.ResponseError{Kind: agent.KindInvalid, Text: err.Error()}
	}
	serve, err := s.store.use()
	if err != nil {
		return nil, err
	}
	// Asked for the closure of a path that is not valid, Nix only ends.
	valid, err := serve.ValidPaths([]nix.StorePath{p}, false, false)
	if err != nil {
		return nil, s.store.died(err)
	}
	if len(valid) == 0 {
		return nil, &agent.ResponseError{Kind: agent.KindInvalid, Text: string(p) + " is not on the target (any more)"}
	}
	paths, err := serve.Closure(valid)
	if err != nil {
		return nil, s.store.died(err)
	}
	infos, err := serve.PathInfos(paths)
	if err != nil {
		return nil, s.store.died(err)
	}
	return infos, nil
}
