// Package receive is how store paths come to a target: it tells which are missing, takes the stream that a ship sends, rebuilds the
// paths in it, and has the target's own nix-store verify and register each. It knows which paths a power cut may have spoiled, and
// puts back what is not on the disk.
//
// A [Receiver] belongs to one agent and has its store: one `nix-store --serve --write`, which lives as long as the agent and keeps what
// it was asked about from being collected. It is ended with the receiver, but for one that waits in the middle of a path when the
// connection is lost: a small process, the parking process, then holds its pipes for the next agent, ten minutes at most, see [RunParking]. The
// next agent's receiver finds it, and goes on with that path or ends it.
//
// The stream is a header for each path, and its NAR or the chunks of a difference to paths that are here, its bases. More channels of the
// same connection may carry parts of it: each is joined with the agent's socket by a process of its own, see [Channel].
//
// Where nothing is written before the lock is held, what may come is written down first, and forgotten when all of it is on the disk:
// what is still written down in another boot is in doubt, and is read before it is activated.
//
// A [StreamError] is a stream of ferry's that breaks its own format or ends too early; an [agent.ResponseError] of the kind base or channel
// says that ferry may try in another way. All else is a fault of the target's, in nix-store's own words where it had some.
package receive
