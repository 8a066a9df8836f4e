package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/receive"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// evaluateLimit is how long an evaluation may take: a small machine needs many minutes.
const evaluateLimit = time.Hour

// evaluate evaluates what the last deployment left, by the command line that "ferry abandon" tells people, but for building.
func (s *server) evaluate(ctx context.Context) (*agent.EvaluateResult, error) {
	place := currentPlace(s.root())
	if place == "" {
		return nil, &agent.ResponseError{Kind: agent.KindNone, Text: "no deployment has left its configuration there: " + currentRoot + " is missing"}
	}
	ctx, cancel := context.WithTimeout(ctx, evaluateLimit)
	defer cancel()
	place = s.root().Path(place)
	var out bytes.Buffer
	err := s.runner.Run(ctx, run.Command{
		// A configuration that needs something built to be evaluated must not have it built here, or elsewhere for here.
		Argv: append(instantiation(place), "--option", "max-jobs", "0", "--option", "builders", "", "--option", "substitute", "false"),
		Out:  &out, Err: agent.LogWriter{Wire: s.wire}, Insist: true,
	})
	if err != nil {
		return nil, err
	}
	drv, err := nix.ParseStorePath(strings.TrimSpace(out.String()))
	if err != nil {
		return nil, fmt.Errorf("the answer of nix-instantiate: %w", err)
	}
	text, err := readDerivation(s.root(), drv)
	if err != nil {
		return nil, err
	}
	parsed, err := nix.ParseDerivation(text)
	if err != nil {
		return nil, err
	}
	version, err := s.runner.Output(ctx, run.Command{Argv: []string{"nix-instantiate", "--version"}})
	if err != nil {
		return nil, err
	}
	result := &agent.EvaluateResult{Derivation: drv, Toplevel: parsed.Outputs["out"].Path}
	if v, err := nix.ParseVersion(string(version)); err == nil {
		result.Nix = v.Text
	}
	return result, nil
}

// instantiation is the command that evaluates the system of the bundle at place. One of a flake has it all in its default.nix, with all
// configurations of the flake, and ferry.json says which is this one.
func instantiation(place string) []string {
	if _, err := os.Lstat(place + "/flake.lock"); err != nil {
		return []string{"nix-instantiate", "<nixpkgs/nixos>", "-A", "system",
			"-I", "nixpkgs=" + place + "/nixpkgs", "-I", "nixos-config=" + place + "/configuration.nix"}
	}
	return []string{"nix-instantiate", "--expr", `{ place }: (import (place + "/default.nix")).${(builtins.fromJSON
		(builtins.unsafeDiscardStringContext (builtins.readFile (place + "/ferry.json")))).attribute}.config.system.build.toplevel`, "--argstr", "place", place}
}

// readDerivation reads the file of a derivation.
func readDerivation(r machine.Root, drv nix.StorePath) (string, error) {
	if !drv.IsDerivation() {
		return "", fmt.Errorf("%s is no derivation", drv)
	}
	file, err := os.Open(r.Path(string(drv)))
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, nix.MaxDerivation+1))
	if err == nil && len(text) > nix.MaxDerivation {
		err = errors.New("it is too long")
	}
	return string(text), err
}

// derivations gives the texts of the first of the derivations that are asked for, as many as fit into an answer.
func (s *server) derivations(stream *agent.DataReader) (*agent.Derivations, error) {
	paths, err := receive.ReadPaths(stream)
	if err == nil {
		err = stream.Drain()
	}
	if err != nil {
		return nil, &receive.StreamError{Err: err}
	}
	result, size := &agent.Derivations{Texts: [][]byte{}}, 0
	for _, p := range paths {
		text, err := readDerivation(s.root(), p)
		if err != nil || len(text) > agent.MaxDerivations {
			// ferry says that it could not be compared.
			text = ""
		}
		if size += len(text); size > agent.MaxDerivations {
			break
		}
		result.Texts = append(result.Texts, []byte(text))
	}
	return result, nil
}
