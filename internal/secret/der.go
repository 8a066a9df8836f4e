package secret

import (
	"bytes"
	"encoding/asn1"
	"math/big"
)

// inDER names the private key that a file holds in binary, or is "".
func inDER(text []byte) string {
	if len(text) < 16 || text[0] != 0x30 {
		return ""
	}
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(text, &outer)
	if err != nil || len(rest) > 0 || !outer.IsCompound {
		return ""
	}
	var first, second asn1.RawValue
	if rest, err = asn1.Unmarshal(outer.Bytes, &first); err != nil {
		return ""
	}
	if rest, err = asn1.Unmarshal(rest, &second); err != nil {
		return ""
	}
	if first.Tag != asn1.TagInteger || first.Class != asn1.ClassUniversal {
		// PKCS #8 with a password: how it is encrypted, and what.
		if first.Tag == asn1.TagSequence && second.Tag == asn1.TagOctetString && len(rest) == 0 && isAlgorithm(first.Bytes, 1, 2, 840, 113549, 1) {
			return "private key"
		}
		return ""
	}
	var version *big.Int
	if _, err := asn1.Unmarshal(first.FullBytes, &version); err != nil || !version.IsInt64() {
		return ""
	}
	switch v := version.Int64(); {
	case v == 3 && second.Tag == asn1.TagSequence && isAlgorithm(second.Bytes, 1, 2, 840, 113549, 1, 7):
		return "PKCS #12 key store"
	case v <= 1 && second.Tag == asn1.TagSequence && follows(rest, asn1.TagOctetString) && isAlgorithm(second.Bytes):
		return "private key" // PKCS #8
	case v == 1 && second.Tag == asn1.TagOctetString && len(second.Bytes) >= 16 && len(rest) > 0 && rest[0]&0xe0 == 0xa0:
		return "private key" // SEC 1: an elliptic curve's
	case v == 0 && second.Tag == asn1.TagInteger && len(second.Bytes) >= 64 && integers(rest) >= 3:
		return "private key" // PKCS #1: RSA; or DSA
	}
	return ""
}

// keyStore is how long a file is, in bytes, that begins as part does, if that is the beginning of a PKCS #12 key store; else 0. No other
// binary key is too long for one part of a file.
func keyStore(part []byte) int64 {
	header, length := sequence(part)
	if header == 0 {
		return 0
	}
	rest, is := bytes.CutPrefix(part[header:], []byte{asn1.TagInteger, 1, 3})
	if inner, _ := sequence(rest); !is || inner == 0 || !isAlgorithm(rest[inner:], 1, 2, 840, 113549, 1, 7) {
		return 0
	}
	return int64(header) + length
}

// sequence is how long the header of the sequence is that text begins with, and what the sequence has in it, in bytes; 0: it begins with
// none.
func sequence(text []byte) (header int, length int64) {
	if len(text) < 6 || text[0] != 0x30 {
		return 0, 0
	}
	digits := int(text[1]) - 0x80
	if digits < 0 {
		return 2, int64(text[1])
	}
	if digits == 0 || digits > 4 {
		return 0, 0
	}
	for _, c := range text[2 : 2+digits] {
		length = length<<8 | int64(c)
	}
	return 2 + digits, length
}

// isAlgorithm tells whether text begins with an object identifier, one that begins with prefix.
func isAlgorithm(text []byte, prefix ...int) bool {
	var id asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(text, &id); err != nil || len(id) < len(prefix) {
		return false
	}
	return asn1.ObjectIdentifier(prefix).Equal(id[:len(prefix)])
}

// follows tells whether text begins with a value of the type.
func follows(text []byte, tag int) bool {
	var v asn1.RawValue
	_, err := asn1.Unmarshal(text, &v)
	return err == nil && v.Class == asn1.ClassUniversal && v.Tag == tag
}

// integers counts the integers that text is a row of.
func integers(text []byte) (n int) {
	for len(text) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(text, &v)
		if err != nil || v.Tag != asn1.TagInteger {
			return n
		}
		n, text = n+1, rest
	}
	return n
}
