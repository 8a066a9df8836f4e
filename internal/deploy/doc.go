// Package deploy changes one node: it ships a bundle, has the target activate it and roll back by itself unless it is confirmed, and
// commits it. Each step is in a file of its name.
//
// [Run] is a whole deployment. [Rollback] switches to a system that is there already, [Attach] follows a switch that goes on at its
// target, and [RunPlain] deploys with nix-copy-closure and ssh alone.
//
//	prepare   a session connects, evaluates and builds; then it is known whether there is anything to do
//	agree     a preview is shown to a person, who agrees (agree.go)
//	ship      what the target lacks is sent (ship.go), and what its disk has lost is put back (ondisk.go)
//	lockout   the new system is judged on the target: may it lock this login out (lockout.go)
//	switch    the target arms its rollback and activates (switch.go); ferry comes back over a new login (confirm.go), makes
//	          the node's checks (checks.go), and the target commits
//	reboot    instead of a switch: the boot loader tries the system once, and it is committed when it has come up (reboot.go)
//
// # What lives long
//
// A deployment owns its visit, and with it the connection, until it ends. The switch itself lives on the target: what this process
// holds of it is a token, by which it may confirm, and can be lost at any time. From the moment that the target may be changing,
// the user's first signal ends nothing here (shield.go); a second one leaves the target to itself.
//
// # Errors
//
// Every failure is a [session.Error]. Its State is what the target itself has said, or what follows from the step: unchanged until
// the activation begins, rolled back where the target says so, and unknown wherever the end was not heard of. The words
// for what a target says of its end are in outcome.go.
package deploy
