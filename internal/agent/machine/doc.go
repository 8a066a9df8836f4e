// Package machine is the machine that the agent runs on, as it is: its files, who has logged in to it, its processes, its mounted
// file systems, its locks. It only looks, but for ferry's own folders and GC roots, and knows of no request, job or deployment.
//
// [Root] is where all files are looked up: at / on a target, and in a folder in a test. Its methods read small files that are the
// machine's own, or root's, and give nothing where something cannot be read: what the agent finds out besides is not worth an
// error.
//
// [Files] reads what others have a say in: the files of two systems, and of users. So it is bounded: it follows links as the machine
// would, stays below the folders that it is told, never waits for a pipe, and reads a limited number of files of a limited size.
// A [Presence] says what is known of a file. One that cannot be read whole is not taken for one that is missing. A system that has
// not arrived yet is read in the same way, by what [Files.Foreseen] tells of it.
//
// A [Login] is how whoever deploys came here: the user, the ssh server and the connection, how the user has shown who they are, and
// which program made root of them. The kernel says it, by the processes above the agent's; variables of the environment are believed
// only where the kernel is silent.
//
// Ferry's folders have to be root's alone, and so do its locks: [OwnFolder], [Root.CheckWay] and [ReplaceLock] see to that, and
// [UsedByRoot] tells a lock that root's processes hold from one that any user can hold. An error of theirs says what is wrong with
// which path, in words for a person who can mend it.
package machine
