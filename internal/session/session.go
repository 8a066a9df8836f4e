package session

import (
	"context"

	"ferry/internal/nix"
	"ferry/internal/target"
)

// Session is who works on nodes, and with what. Its functions may be called from several goroutines.
type Session struct {
	Nix    *nix.Client
	Dialer *target.Dialer
	Roots  Roots
	// Password gives the password that command, such as sudo, asks for on node; see agent.Options. nil: there is none.
	Password Password
	// Unasked is Password where no person may be asked; nil: then there is none. See [Session.Each].
	Unasked Password
	// Who is told to others that find the target locked: user@machine.
	Who string
	// Turn, when set, makes a node wait for its turn among several.
	Turn Turn
	// Observe gets every event, those of one node one at a time.
	Observe func(Event)
}

// Password gives the password that command asks for on node, at the attempt of this number, counted from 1.
type Password func(ctx context.Context, node, command string, attempt int) ([]byte, error)
