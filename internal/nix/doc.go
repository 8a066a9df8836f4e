// Package nix is everything ferry knows of Nix: store paths, NARs, the protocol of nix-store --serve, and the commands of
// the Nix that is installed here, from version 2.8 on, in its own, Lix's and Determinate's edition.
//
// [Serve] and [DumpPath] are also used at the target, by ferry-agent, and read what another machine says: every length
// and every store path is checked, and no memory is taken for data that has not arrived.
package nix
