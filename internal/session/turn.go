package session

import "context"

// Turn waits until a node may begin a step, and gives what ends its turn; both may be called from several goroutines. It is
// asked before these steps:
//
//   - Connect, whose turn ends when the connection is made or has failed;
//   - Build, whose turn ends when it is known whether it can be built here: see [nix.Client.BuildTogether] for the rest;
//   - Compare, before it is found out what would be done, if anybody wants to know;
//   - Ship, when everything before has gone well and something is to be done on the node;
//   - Activate, when all is there, which ends the turn before. Until then the node is unchanged. Both turns last until the
//     deployment ends.
//
// An error ends the deployment of the node.
type Turn func(ctx context.Context, node string, step Step) (over func(), err error)
