package server

import (
	"context"

	"ferry/internal/agent"
	"ferry/internal/agent/lockout"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/receive"
	"ferry/internal/nix"
)

// inspect tells what in the toplevel of r may lock out the login that asks, what of that it cannot know, and which files it has to
// know besides, of a system that is not here yet. Nothing is changed.
func (s *server) inspect(ctx context.Context, r agent.Request, stream *agent.DataReader, response *agent.Response) error {
	var foreseen *lockout.Foreseen
	if r.Ahead {
		var err error
		if foreseen, err = readForeseen(s.root(), stream); err != nil {
			return &receive.StreamError{Err: err}
		}
	}
	toplevel := string(r.Toplevel)
	if _, err := nix.ParseStorePath(toplevel); err != nil {
		return &agent.ResponseError{Kind: agent.KindInvalid, Text: err.Error()}
	}
	if !r.Ahead && !s.root().Exists(toplevel) {
		return &agent.ResponseError{Kind: agent.KindInvalid, Text: toplevel + " is not on the target (any more)"}
	}
	if !r.Ahead && !s.root().Exists(toplevel+"/bin/switch-to-configuration") {
		return &agent.ResponseError{Kind: agent.KindInvalid, Text: toplevel + " is no NixOS system"}
	}
	current := s.root().StorePath("/run/current-system")
	if current == "" || current == toplevel {
		return nil
	}
	l := s.login()
	if l.Elevate == "" && l.UID > 0 && (r.Elevate == "sudo" || r.Elevate == "doas") {
		l.Elevate = r.Elevate
	}
	q := lockout.Question{
		Root: s.root(), Runner: s.runner, Login: l, Old: current, New: toplevel, Foreseen: foreseen,
		Guarded: r.Action == "switch" || r.Action == "test",
	}
	if c, ok := undoneBy(s.root(), current, toplevel); ok {
		q.Undone = &c
	}
	answer := lockout.Ask(ctx, q)
	response.Risks, response.Unsure = answer.Risks, answer.Unsure
	if foreseen != nil {
		for _, p := range foreseen.Wanted {
			response.Wanted = append(response.Wanted, agent.Verbatim(p))
		}
	}
	return nil
}

// readForeseen reads the stream of an inspection: zstd of files as JSON.
func readForeseen(r machine.Root, stream *agent.DataReader) (*lockout.Foreseen, error) {
	z, err := receive.NewDecoder(stream)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	foreseen, err := lockout.ReadForeseen(r, z)
	if err != nil {
		return nil, err
	}
	return foreseen, stream.Drain()
}
