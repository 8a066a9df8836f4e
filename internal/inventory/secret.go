package inventory

import (
	"bytes"
	"regexp"
)

// secretWindow is how much of a file's beginning is searched for private keys, in bytes.
const secretWindow = 64 << 10

// secretKind is one kind of private key. mark is cheap to look for and stands in every file that pattern matches.
type secretKind struct {
	name    string
	mark    string
	pattern *regexp.Regexp
}

// A header alone does not make a key: documentation and programs name headers too. What follows a real one is a base64
// character or a "Name: value" line, never a quote, a dot or a bracket.
var secretKinds = []secretKind{
	{"private key", "PRIVATE KEY", regexp.MustCompile(
		`----[- ]BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?[- ]----(?:\s|\\r|\\n)+[A-Za-z0-9+/]`)},
	{"PuTTY private key", "PuTTY-User-Key-File-", regexp.MustCompile(`PuTTY-User-Key-File-[0-9]+: *[a-z0-9]`)},
	{"age secret key", "AGE-SECRET-KEY-", regexp.MustCompile(`AGE-SECRET-KEY-(?:PQ-)?1[02-9AC-HJ-NP-Z]{20}`)},
	{"minisign or signify secret key", "untrusted comment:", regexp.MustCompile(
		`untrusted comment:[^\n]{0,200}secret key[^\n]{0,200}\n[A-Za-z0-9+/]{40}`)},
	// A binary cache's signing key is NAME:BASE64 of 64 bytes and nothing else; the public one has 32 bytes.
	{"Nix signing key", ":", regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}:[A-Za-z0-9+/]{86}==\s*$`)},
}

// secretIn names the kind of private key that a file beginning with head holds, or is "". head is the first secretWindow
// bytes and a little more, so that a header across the edge is seen whole.
func secretIn(head []byte) string {
	for _, k := range secretKinds {
		if bytes.Contains(head, []byte(k.mark)) && k.pattern.Match(head) {
			return k.name
		}
	}
	return ""
}
