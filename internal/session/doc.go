// Package session works on one node: it connects, evaluates and builds, tells what happens, and says what went wrong. What that is
// for it does not know; deploying, previewing, asking for the status and verifying all begin here.
//
// Its words:
//
//   - A [Session] is who works on nodes and with what: Nix here, the user's ssh, whoever gives passwords, who watches. A command
//     makes one, and hands it to whatever it calls, also for several nodes at once.
//   - A [Visit] is one node in a session. It tells the node's events, one at a time, and makes its errors.
//   - A [Link] is a visit's connection to the agent on the node's target. Where it is lost, it is made again without asking
//     anybody; a request that must not be made twice goes on where it was (see [Link.Follow]).
//   - A [Step] is a part of the work, an [Event] what a person or a log is told of it.
//   - [Known] is what this machine knows of what a node should have: a target that has anything else is a [Surprise].
//
// # What lives long
//
// A visit owns its link, and whoever has made the visit closes it. The link keeps the password of one node, to connect again, and
// overwrites it when it is closed. A session owns nothing: its Nix, its dialer and its functions are the command's.
//
// # Errors
//
// Work on a node fails with an [*Error]: the step, and the [State] that the node is left in, which decides the exit status. Nothing here
// changes a node, so all of this package's say [Unchanged]. What the user can do about it goes with the error that knows it,
// as Hints; [Hint] makes one.
package session
