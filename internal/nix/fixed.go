package nix

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"path/filepath"
)

// AddTree puts the tree at path in the store as [Client.Add] does, and gives its narHash for fetchTree besides. It is kept from
// the first moment, see [Client.Keep]. What is in the store already, whole, is not written again.
func (c *Client) AddTree(ctx context.Context, path string) (p StorePath, narHash string, err error) {
	p, narHash, err = TreePath(ctx, filepath.Base(path), path, Selection{})
	if err != nil {
		return "", "", fmt.Errorf("add %s to the store: %w", path, err)
	}
	if valid, err := c.Keep(ctx, p); err != nil || valid {
		return p, narHash, err
	}
	added, err := c.Add(ctx, path)
	if err != nil {
		return "", "", err
	}
	if added != p {
		return "", "", fmt.Errorf("add %s to the store: Nix made it %s, expected %s: it changed meanwhile", path, added, p)
	}
	return p, narHash, nil
}

// TreePath is the store path that [Client.AddTree] would give to what is selected of the tree at path, under a name, and its narHash.
func TreePath(ctx context.Context, name, path string, of Selection) (p StorePath, narHash string, err error) {
	hash := sha256.New()
	if err := dumpSome(ctx, hash, path, of); err != nil {
		return "", "", err
	}
	sum := [sha256.Size]byte(hash.Sum(nil))
	p, err = treePath(name, sum)
	return p, "sha256-" + base64.StdEncoding.EncodeToString(sum[:]), err
}

// treePath is the store path of a tree without references that is added by the hash of its NAR: a hash over the words
// below, folded to 160 bits (Nix's manual, "Store path specification").
func treePath(name string, narSum [sha256.Size]byte) (StorePath, error) {
	words := "source:sha256:" + hex.EncodeToString(narSum[:]) + ":" + StoreDir + ":" + name
	sum := sha256.Sum256([]byte(words))
	var folded [20]byte
	for i, b := range sum {
		folded[i%len(folded)] ^= b
	}
	return ParseStorePath(StoreDir + "/" + encodeBase32(folded[:]) + "-" + name)
}

// encodeBase32 writes Nix's base 32: the last digit holds the lowest five bits, little end first.
func encodeBase32(b []byte) string {
	n := (len(b)*8 + 4) / 5
	digits := make([]byte, n)
	for i := range n {
		bit := i * 5
		at, shift := bit/8, bit%8
		value := b[at] >> shift
		if at+1 < len(b) {
			value |= b[at+1] << (8 - shift)
		}
		digits[n-1-i] = base32Digits[value&31]
	}
	return string(digits)
}

// FetchedPath is where the tree with a narHash is in the store, when fetchTree has fetched it: what is a flake's source or an input.
func FetchedPath(narHash string) (StorePath, error) {
	sum, err := ParseNarHash(narHash)
	if err != nil {
		return "", err
	}
	return treePath("source", sum)
}
