// Package lockout tells whether another system would lock out the login that deploys it: [Ask].
//
// The [Question] is a machine, a login, the toplevel that runs and the one that is to run. The answer is what may go wrong, as risks
// of the protocol, and what could not be found out. It is a pure question: nothing is changed, and neither jobs nor the guard are
// known here, but for what a switch of theirs would undo in the accounts.
//
// It tells only what it knows: a warning that is often wrong is soon not read. So what the two systems say is compared with each
// other and with what this login uses: sshd's units and settings, the user's keys, the user and their groups, sudo and doas, the
// address and the firewall. What cannot be read or understood counts as harmless, and so does what is no different before.
//
// An etcView is /etc as a system leaves it: what its toplevel brings, and the machine's own files that belong to no system. The files
// are read within bounds, see [machine.Files]. A system that is not here yet is read by what ferry tells of it: [Foreseen] holds that,
// and notes what else is wanted. Whoever asks then asks again with it, until nothing is.
package lockout
