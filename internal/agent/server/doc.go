// Package server is the agent's side of the protocol of package agent: it runs as root on a target, for one deployment, and ends with
// its input. What it finds out and what it receives is in the packages beside it: machine, lockout, bootloader, units, receive.
//
// [Serve] says hello, with the facts of the target, and answers requests one after another. It lives as long as the connection and
// holds the lock, by which one deployment at a time changes the target. An answer is given whatever happens: an error of a request
// becomes an [agent.ResponseError], and the error that Serve returns is one of the connection.
//
// Everything that must outlive a lost connection is a [Job]: a process of its own, in a folder in /run/ferry that says what it has to
// do, has its log, and says how it ended. The agent that began it follows it, and so may a later one. A job holds a lock of its own
// while it works. What goes wrong with the work is in its status; an error is one of its folder.
//
// The guard is the job that switches. It arms a rollback timer, activates, waits until ferry has come back and is content, and
// commits; or it rolls the system back. What it has come to is in a file, so that a successor, which the timer starts or systemd, goes
// on from there. The committer sets the profile, the boot loader and the links, or undoes all of that. A trial is a system that is
// booted once, by the boot loader's one-shot entry, while the default stays another one; the reboot timer ends it.
//
// Who deployed what, and how it ended, is in the journal, which nothing here depends on.
package server
