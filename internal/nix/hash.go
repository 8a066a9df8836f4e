package nix

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// NarHashOf renders the SHA-256 sum of a NAR the way [PathInfo] holds it, "sha256:<base 16>".
func NarHashOf(sum [sha256.Size]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }

// ParseNarHash reads a SHA-256 hash in any of Nix's spellings: "sha256:" with base 16, Nix's base 32 or base 64, or
// "sha256-" with base 64, which is how fetchTree writes narHash.
func ParseNarHash(s string) ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	if digits, found := strings.CutPrefix(s, "sha256:"); found {
		switch len(digits) {
		case hex.EncodedLen(len(sum)):
			if _, err := hex.Decode(sum[:], []byte(digits)); err != nil {
				return sum, fmt.Errorf("hash %q: %w", s, err)
			}
			return sum, nil
		case 52:
			if err := decodeBase32(&sum, digits); err != nil {
				return sum, fmt.Errorf("hash %q: %w", s, err)
			}
			return sum, nil
		case base64.StdEncoding.EncodedLen(len(sum)):
			return decodeBase64(s, digits)
		}
		return sum, fmt.Errorf("hash %q has the wrong length", shorten(s))
	}
	if digits, found := strings.CutPrefix(s, "sha256-"); found && len(digits) == base64.StdEncoding.EncodedLen(len(sum)) {
		return decodeBase64(s, digits)
	}
	return sum, fmt.Errorf("%q is not a SHA-256 hash", shorten(s))
}

// SRI renders a NarHash of [PathInfo] as "sha256-<base 64>", as the narHash of builtins.fetchTree wants it.
func SRI(narHash string) (string, error) {
	sum, err := ParseNarHash(narHash)
	if err != nil {
		return "", err
	}
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:]), nil
}

func decodeBase64(s, digits string) (sum [sha256.Size]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(digits)
	if err != nil {
		return sum, fmt.Errorf("hash %q: %w", s, err)
	}
	if copy(sum[:], b) != len(sum) {
		return sum, fmt.Errorf("hash %q has the wrong length", s)
	}
	return sum, nil
}

// decodeBase32 reads Nix's base 32: the last digit holds the lowest five bits, little end first.
func decodeBase32(sum *[sha256.Size]byte, digits string) error {
	for n := range len(digits) {
		digit := strings.IndexByte(base32Digits, digits[len(digits)-1-n])
		if digit < 0 {
			return fmt.Errorf("%q is not a digit of Nix's base 32", digits[len(digits)-1-n])
		}
		bit := n * 5
		i, j := bit/8, bit%8
		sum[i] |= byte(digit << j)
		carry := byte(digit >> (8 - j))
		if i+1 < len(sum) {
			sum[i+1] |= carry
		} else if carry != 0 {
			return errors.New("it holds more than 256 bits")
		}
	}
	return nil
}
