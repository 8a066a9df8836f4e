package agent

import (
	"context"
	"fmt"
	"io"

	"ferry/internal/nix"
)

// MethodEvaluate has the target's own Nix evaluate what the last deployment left there, as plain nixos-rebuild does: Bundle's
// configuration and nixpkgs, or those of the bundle that is kept. Nothing is built or fetched. Log: what Nix says. Result:
// EvaluateResult. MethodDerivations asks for the texts of derivations. Stream: their store paths, zstd, one a line. Result:
// Derivations. Both need neither the lock nor root.
const (
	MethodEvaluate    Method = "evaluate"
	MethodDerivations Method = "derivations"
)

// EvaluateResult is what a configuration evaluates to on the target.
type EvaluateResult struct {
	Derivation nix.StorePath `json:"derivation"`
	Toplevel   nix.StorePath `json:"toplevel"` // what it would build
	Nix        string        `json:"nix"`      // version of Nix there
}

// Derivations are the texts of some of the derivations that were asked for, by the index in the question. Those that would
// not fit are left out, but never the first; one that is too long or not there has no text.
type Derivations struct {
	Texts [][]byte `json:"texts" is:"bytes"`
}

// MaxDerivations is how long the texts of an answer may be together, in bytes: they are one frame, and JSON makes them longer.
const MaxDerivations = 600 << 10

// Evaluate has the target evaluate a system as plain nixos-rebuild does there. What Nix says goes to log.
func (s *Session) Evaluate(ctx context.Context, log io.Writer) (EvaluateResult, error) {
	response, err := s.request(ctx, Request{Method: MethodEvaluate}, nil, nil, log)
	if err != nil || response.Evaluate == nil {
		return EvaluateResult{}, orMissing(err)
	}
	r := *response.Evaluate
	for _, p := range []nix.StorePath{r.Derivation, r.Toplevel} {
		if _, err := nix.ParseStorePath(string(p)); err != nil {
			return EvaluateResult{}, fmt.Errorf("the agent's answer: %w", err)
		}
	}
	return r, nil
}

// Derivations asks for the texts of derivations; those that the target does not tell are left out.
func (s *Session) Derivations(ctx context.Context, drvs []nix.StorePath) (map[nix.StorePath]string, error) {
	texts := map[nix.StorePath]string{}
	for len(drvs) > 0 {
		asked := drvs[:min(len(drvs), 500)]
		response, err := s.request(ctx, Request{Method: MethodDerivations}, func(w io.Writer) error { return writePaths(w, asked) }, nil, nil)
		if err != nil || response.Derivations == nil {
			return nil, orMissing(err)
		}
		told := response.Derivations.Texts
		if len(told) == 0 || len(told) > len(asked) {
			return nil, fmt.Errorf("the agent on %s tells %d derivations of %d", s.address, len(told), len(asked))
		}
		for i, text := range told {
			if len(text) > 0 {
				texts[drvs[i]] = string(text)
			}
		}
		drvs = drvs[len(told):]
	}
	return texts, nil
}
