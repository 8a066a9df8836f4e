package nix

import (
	"fmt"
	"strings"
)

// StoreDir is the one store directory ferry works with. A system built for another one does not run at a target.
const StoreDir = "/nix/store"

const (
	hashLength    = 32
	maxNameLength = 211
	// maxPathLength is the length of the longest store path.
	maxPathLength = len(StoreDir) + 1 + hashLength + 1 + maxNameLength
)

// base32Digits are the digits of Nix's base 32, lowest first. e, o, u and t are left out.
const base32Digits = "0123456789abcdfghijklmnpqrsvwxyz"

// StorePath is a path directly in the store, "/nix/store/<32 base 32 digits>-<name>". A value made by [ParseStorePath]
// is safe as a single path, as an argument that is not an option, and on a terminal.
type StorePath string

// ParseStorePath accepts exactly a store path: no path below one, no trailing slash, no name that Nix refuses.
func ParseStorePath(s string) (StorePath, error) {
	base, found := strings.CutPrefix(s, StoreDir+"/")
	if !found {
		return "", fmt.Errorf("%q is not in %s", shorten(s), StoreDir)
	}
	if len(base) < hashLength+2 || base[hashLength] != '-' {
		return "", fmt.Errorf("%q is not a store path: it lacks a hash and a name", shorten(s))
	}
	for i := range hashLength {
		if strings.IndexByte(base32Digits, base[i]) < 0 {
			return "", fmt.Errorf("%q is not a store path: its hash contains %q", shorten(s), base[i])
		}
	}
	if err := checkName(base[hashLength+1:]); err != nil {
		return "", fmt.Errorf("%q is not a store path: %w", shorten(s), err)
	}
	return StorePath(s), nil
}

// SplitStorePath splits a path in the store into the store path and the rest below it, which is "" or starts with a
// slash. The rest is not resolved and may name nothing, but it contains no "..", no "." and no empty component.
func SplitStorePath(p string) (StorePath, string, error) {
	rest := ""
	if base, found := strings.CutPrefix(p, StoreDir+"/"); found {
		if i := strings.IndexByte(base, '/'); i >= 0 {
			rest = base[i:]
		}
	}
	path, err := ParseStorePath(strings.TrimSuffix(p, rest))
	if err != nil {
		return "", "", err
	}
	if rest != "" {
		for _, c := range strings.Split(rest[1:], "/") {
			if c == "" || c == "." || c == ".." || strings.IndexByte(c, 0) >= 0 {
				return "", "", fmt.Errorf("%q is not a clean path below a store path", shorten(p))
			}
		}
	}
	return path, rest, nil
}

// Base is the last component of p: hash and name.
func (p StorePath) Base() string { return strings.TrimPrefix(string(p), StoreDir+"/") }

// Hash is the 32 digits that start the last component.
func (p StorePath) Hash() string {
	if b := p.Base(); len(b) >= hashLength {
		return b[:hashLength]
	}
	return ""
}

// Name is the name without the hash.
func (p StorePath) Name() string {
	if b := p.Base(); len(b) > hashLength {
		return b[hashLength+1:]
	}
	return ""
}

// IsDerivation tells whether p is the file of a derivation.
func (p StorePath) IsDerivation() bool { return strings.HasSuffix(string(p), ".drv") }

func (p StorePath) String() string { return string(p) }

func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("its name is empty")
	}
	if len(name) > maxNameLength {
		return fmt.Errorf("its name is longer than %d bytes", maxNameLength)
	}
	// A name that starts with a dot is allowed since Nix 2.20, but never one whose first dash-separated part is "." or "..".
	first, _, _ := strings.Cut(name, "-")
	if first == "." || first == ".." {
		return fmt.Errorf("its name starts with %q", first)
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case strings.IndexByte("+-._?=", c) >= 0:
		default:
			return fmt.Errorf("its name contains %q", c)
		}
	}
	return nil
}

// shorten keeps an error message readable when it quotes something that should have been a path.
func shorten(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
