// Package delta says how a NAR differs from what older store paths hold: ferry encodes it from the two trees on its disk, and
// the agent rebuilds it from the old trees on its own. doc/shipping.md describes the format and why it is as it is.
//
// Neither side holds a file, or a NAR, in memory, and neither follows a symbolic link.
package delta
