// Package units tells what systemd says of units, and what the program that switches has said: which are in trouble, which are loaded,
// which run. It judges nothing: which of them a switch is blamed for is for the guard to say.
//
// A unit is in trouble when it has failed, or when systemd starts it again and again: one with Restart=always is never in the failed
// state for long, and looks well each time that it has just been started. A [Manager] is a service manager, the system's or a user's.
// A user's may be anything that the user has put there, so it is asked as that user, not waited for and not read without end. A unit of a
// user's is named behind the user's name and a colon.
//
// [Printed] is what a switch-to-configuration has printed, which tells how far it came, and [Complaints] what it has said of units.
// Part of both is written by users: it is no word about the system's units.
//
// What cannot be found out is nothing, and no error, but of [Manager.AskTroubled], which is for people.
package units
