package secret

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"crypto/ed25519"
	"encoding/base64"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxDepth is how many wrappings are unpacked: a base 64 text in a compressed file is two.
const maxDepth = 3

// kind is one kind of secret. mark is in all of them, and is decides about one whose mark begins at a place of a window.
type kind struct {
	name, mark string
	is         func(s *Scanner, window []byte, at int) bool
}

// table is the kinds, and what finds their marks.
type table struct {
	kinds []kind
	marks *finder
}

func newTable() *table {
	t := &table{kinds: kinds()}
	var all []string
	for _, k := range t.kinds {
		all = append(all, k.mark)
	}
	t.marks = newFinder(all)
	return t
}

// A header alone does not make a key: documentation and programs name headers too. What follows a real one is a base64
// character or a "Name: value" line, never a quote, a dot or a bracket.
var privateKey = regexp.MustCompile(`----[- ]BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?[- ]----(?:\s|\\r|\\n)+[A-Za-z0-9+/]`)

func kinds() []kind {
	const key, token = "private key", "access token"
	all := []kind{
		{key, "PRIVATE KEY", near(64, 1024, privateKey)},
		{"PuTTY private key", "PuTTY-User-Key-File-", near(0, 64, regexp.MustCompile(`^PuTTY-User-Key-File-[0-9]+: *[a-z0-9]`))},
		{"age secret key", "AGE-SECRET-KEY-", near(0, 80, regexp.MustCompile(`^AGE-SECRET-KEY-(?:PQ-)?1[02-9AC-HJ-NP-Z]{20}`))},
		{"minisign or signify secret key", "untrusted comment:", near(0, 600, regexp.MustCompile(
			`^untrusted comment:[^\n]{0,200}secret key[^\n]{0,200}\n[A-Za-z0-9+/]{40}`))},
		{"Nix signing key", "==", isSigningKey},
		{"JSON web key", `kty"`, isWebKey},
		{"JSON web key", `kty\"`, isWebKey},
		{"password hash", ":$", near(64, 512, regexp.MustCompile(
			`(?:^|\n)[a-z_][a-z0-9_.-]{0,40}\$?:\$(?:1|2[abxy]|5|6|7|y|gy|sha1)\$[^\s:]{15,}:[0-9]*:[0-9]*:`))},
		{key, "H4sI", isPackedBase64},
	}
	for _, mark := range []string{"rivateKey", "rivate_key", "rivate-key", "resharedKey", "reshared_key", "reshared-key"} {
		all = append(all, kind{"WireGuard key", mark, isWireGuard})
	}
	for _, t := range []struct{ mark, rest string }{
		{"ghp_", `[A-Za-z0-9]{36}`}, {"gho_", `[A-Za-z0-9]{36}`}, {"ghu_", `[A-Za-z0-9]{36}`}, {"ghs_", `[A-Za-z0-9]{36}`},
		{"ghr_", `[A-Za-z0-9]{36}`}, {"github_pat_", `[A-Za-z0-9]{22}_[A-Za-z0-9]{59}`}, {"glpat-", `[A-Za-z0-9_-]{20}`},
		{"xoxb-", slack}, {"xoxp-", slack}, {"xoxa-", slack}, {"xoxr-", slack}, {"xoxs-", slack},
		{"npm_", `[A-Za-z0-9]{36}`}, {"sk_live_", `[A-Za-z0-9]{24}`}, {"tskey-", `[a-z]+-[A-Za-z0-9]{8,}-[A-Za-z0-9]{20,}`},
	} {
		all = append(all, kind{token, t.mark, isToken(regexp.MustCompile(`^` + t.mark + t.rest))})
	}
	for _, mark := range inBase64("PRIVATE KEY--") {
		all = append(all, kind{key, mark, isBase64Key})
	}
	return all
}

const slack = `[0-9]{6,}-[A-Za-z0-9-]{16,}`

// near decides by a pattern that is looked for from so many bytes before the mark to so many after where it begins.
func near(back, ahead int, pattern *regexp.Regexp) func(*Scanner, []byte, int) bool {
	return func(_ *Scanner, w []byte, at int) bool {
		return pattern.Match(w[max(0, at-back):min(len(w), at+ahead)])
	}
}

// inBase64 is how a word looks in base 64, in each of the three places that it can have there. What depends on its neighbours is left out.
func inBase64(word string) []string {
	var all []string
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + word))
		from := (shift*8 + 5) / 6
		to := (shift + len(word)) * 8 / 6
		all = append(all, text[from:to])
	}
	return all
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}

// runAround is the base 64 text around a place of a window.
func runAround(w []byte, at int) []byte {
	from, to := at, at
	for from > 0 && isBase64(w[from-1]) {
		from--
	}
	for to < len(w) && isBase64(w[to]) {
		to++
	}
	return w[from:to]
}

// decoded is what base 64 text says, as far as it goes.
func decoded(text []byte) []byte {
	text = text[:len(text)/4*4]
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, _ := base64.StdEncoding.Decode(out, text)
	return out[:n]
}

// isBase64Key tells whether the base 64 text around the mark is a PEM file with a private key.
func isBase64Key(_ *Scanner, w []byte, at int) bool {
	run := runAround(w, at)
	for shift := range min(4, len(run)) {
		if privateKey.Match(decoded(run[shift:])) {
			return true
		}
	}
	return false
}

// isPackedBase64 tells whether base 64 text that begins as a gzip file does holds a secret.
func isPackedBase64(s *Scanner, w []byte, at int) bool {
	if s.depth >= maxDepth || at > 0 && isBase64(w[at-1]) {
		return false
	}
	text := bytes.Join(bytes.Fields(w[at:min(len(w), at+after)]), nil)
	end := bytes.IndexFunc(text, func(r rune) bool { return r >= 0x80 || !isBase64(byte(r)) })
	if end >= 0 {
		text = text[:end]
	}
	r, err := gzip.NewReader(bytes.NewReader(decoded(text)))
	return err == nil && s.inner("", io.LimitReader(r, 1<<20)) != ""
}

// isSigningKey tells whether what ends with the mark is NAME:BASE64 of the two halves of an ed25519 key. A signature of Nix's looks the
// same, and its halves do not belong together.
func isSigningKey(_ *Scanner, w []byte, at int) bool {
	const digits = 86 // of 64 bytes, without the two at the end
	from := at - digits
	if from < 2 || w[from-1] != ':' || !isNameByte(w[from-2]) {
		return false
	}
	text, err := base64.StdEncoding.DecodeString(string(w[from : at+2]))
	if err != nil || len(text) != ed25519.PrivateKeySize {
		return false
	}
	return bytes.Equal(ed25519.NewKeyFromSeed(text[:ed25519.SeedSize]), text)
}

func isNameByte(c byte) bool {
	return isBase64(c) && c != '+' && c != '/' || c == '.' || c == '_' || c == '-'
}

var wireGuard = regexp.MustCompile(`(?i)(?:^|[^a-z0-9])pr(?:ivate|eshared)[-_]?key\\?["']?\s*[=:]\s*\\?["']?([a-z0-9+/]{43}=)(?:[^a-z0-9+/=]|$)`)

// isWireGuard tells whether the key that the mark names is 32 bytes of base 64.
func isWireGuard(_ *Scanner, w []byte, at int) bool {
	m := wireGuard.FindSubmatch(w[max(0, at-2):min(len(w), at+160)])
	if m == nil || !isRandom(m[1]) {
		return false
	}
	text, err := base64.StdEncoding.Strict().DecodeString(string(m[1]))
	return err == nil && len(text) == 32
}

// isRandom tells a secret from what stands for one, as xxxxxxxx.
func isRandom(text []byte) bool {
	seen := map[byte]bool{}
	for _, c := range text {
		seen[c] = true
	}
	return len(seen) >= 10
}

func isToken(pattern *regexp.Regexp) func(*Scanner, []byte, int) bool {
	return func(_ *Scanner, w []byte, at int) bool {
		if at > 0 && (isBase64(w[at-1]) && w[at-1] != '/' || w[at-1] == '_' || w[at-1] == '-') {
			return false
		}
		text := w[at:min(len(w), at+200)]
		end := pattern.FindIndex(text)
		return end != nil && isRandom(text[bytes.IndexAny(text, "_-"):end[1]])
	}
}

var (
	webKeyType    = regexp.MustCompile(`kty\\?"\s*:\s*\\?"(RSA|EC|OKP|oct)\\?"`)
	webKeyPrivate = regexp.MustCompile(`[{,\s]\\?"d\\?"\s*:\s*\\?"[A-Za-z0-9_-]{20,}`)
	webKeySecret  = regexp.MustCompile(`[{,\s]\\?"k\\?"\s*:\s*\\?"[A-Za-z0-9_-]{20,}`)
)

// isWebKey tells whether the JSON object around the mark has a private member.
func isWebKey(_ *Scanner, w []byte, at int) bool {
	from := bytes.LastIndexByte(w[max(0, at-before):at], '{')
	if from < 0 {
		return false
	}
	object := w[max(0, at-before)+from : min(len(w), at+after)]
	if end := bytes.IndexByte(object, '}'); end >= 0 {
		object = object[:end]
	}
	m := webKeyType.FindSubmatch(object)
	switch {
	case m == nil:
		return false
	case string(m[1]) == "oct":
		return webKeySecret.Match(object)
	}
	return webKeyPrivate.Match(object)
}

// unpacker looks into a compressed file that begins with part, and gives what is found in it; nil if it is none.
func unpacker(part []byte) func(*Scanner, string, io.Reader) string {
	switch {
	case bytes.HasPrefix(part, []byte{0x1f, 0x8b, 8}):
		return stream(func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })
	case bytes.HasPrefix(part, []byte("BZh")) && len(part) > 10 && string(part[4:10]) == "1AY&SY":
		return stream(func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil })
	case bytes.HasPrefix(part, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return stream(func(r io.Reader) (io.Reader, error) {
			z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(32<<20), zstd.WithDecoderLowmem(true))
			if err != nil {
				return nil, err
			}
			return z.IOReadCloser(), nil
		})
	case bytes.HasPrefix(part, zipped) && len(part) > zipHeader:
		return func(s *Scanner, _ string, r io.Reader) string { return s.inZip(r) }
	}
	return nil
}

// stream looks into what is one file when it is unpacked.
func stream(open func(io.Reader) (io.Reader, error)) func(*Scanner, string, io.Reader) string {
	return func(s *Scanner, name string, packed io.Reader) string {
		r, err := open(packed)
		if err != nil {
			return ""
		}
		if closer, is := r.(io.Closer); is {
			defer closer.Close()
		}
		return s.inner(name, unpacked{r, s.left})
	}
}

var (
	// A binary cache's signing key is NAME:BASE64 of 64 bytes and nothing else; the public one has 32 bytes.
	signingFile = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}:[A-Za-z0-9+/]{86}==\s*$`)
	hashFile    = regexp.MustCompile(`^\$(?:1|2[abxy]|5|6|7|y|gy)\$[./A-Za-z0-9$=,+-]{20,}\s*$`)
	netrcName   = regexp.MustCompile(`(?i)^[._]?netrc(?:$|[._-])|[._-]netrc$`)
	netrcLine   = regexp.MustCompile(
		`(?:^|\s)(?:machine\s+\S+|default)\s+(?:login\s+\S+\s+)?(?:account\s+\S+\s+)?password\s+([^\s<$]\S*)`)
)

// whole looks at a file of one part for what is a secret because it is all that is in it.
func (s *Scanner) whole(text []byte) {
	trimmed := bytes.TrimPrefix(text, []byte("\ufeff"))
	m := [][]byte(nil)
	if netrcName.MatchString(path.Base(s.name)) {
		m = netrcLine.FindSubmatch(trimmed)
	}
	switch {
	case len(text) < 300 && signingFile.Match(trimmed):
		s.found = "Nix signing key"
	case len(text) < 400 && hashFile.Match(trimmed):
		s.found = "password hash"
	case m != nil && !bytes.HasPrefix(m[1], []byte("ENC[")):
		s.found = "password of .netrc"
	case s.found == "":
		s.found = inDER(text)
	}
}
