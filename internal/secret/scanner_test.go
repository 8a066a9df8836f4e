package secret

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// begin is the first line of a PEM file. It is put together here so that no file of ferry itself looks like a key.
func begin(what string) string { return "-----BEGIN " + what + " KEY" + "-----\n" }

// scan has text read in parts of a size.
func scan(name, text string, size int) string {
	s := New()
	s.Read("another", []byte(begin("PRIVATE")+"MC4CAQAw"), false)
	for {
		n := min(size, len(text))
		kind := s.Read(name, []byte(text[:n]), n == len(text))
		if n == len(text) {
			return kind
		}
		text = text[n:]
	}
}

func gz(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}

// zipOf is an archive of files, by name and content, as Go writes it: their sizes follow them.
func zipOf(t *testing.T, change func(*zip.FileHeader), files ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &zip.FileHeader{Name: files[i], Method: zip.Deflate}
		if change != nil {
			change(h)
		}
		out := must(w.CreateHeader(h))
		_ = must(out.Write([]byte(files[i+1])))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// rawZip is an archive in which the sizes of files are before them, as Info-ZIP writes it.
func rawZip(t *testing.T, method uint16, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		var packed bytes.Buffer
		f := must(flate.NewWriter(&packed, flate.BestSpeed))
		_ = must(f.Write([]byte(files[i+1])))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if method == zip.Store {
			packed = *bytes.NewBufferString(files[i+1])
		}
		out := must(w.CreateRaw(&zip.FileHeader{Name: files[i], Method: method, CRC32: crc32.ChecksumIEEE([]byte(files[i+1])),
			CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(len(files[i+1]))}))
		_ = must(out.Write(packed.Bytes()))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func wide(text string, order func(uint16) []byte) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(text)) {
		b.Write(order(u))
	}
	return b.String()
}

func littleEnd(u uint16) []byte { return []byte{byte(u), byte(u >> 8)} }
func bigEnd(u uint16) []byte    { return []byte{byte(u >> 8), byte(u)} }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// TestPrivateMaterialIsRecognised has one of each kind, and one of each thing that looks like it and is none. Each is read at once and in
// parts.
func TestPrivateMaterialIsRecognised(t *testing.T) {
	blob := strings.Repeat("QUJD", 24)
	key := begin("PRIVATE") + "MC4CAQAwBQYDK2VwBCIEIAEjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWeJq83v\n-----END PRIVATE " + "KEY-----\n"
	rsaKey, ecKey := must(rsa.GenerateKey(rand.Reader, 2048)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	public, private := must2(ed25519.GenerateKey(rand.Reader))
	pkcs8 := string(must(x509.MarshalPKCS8PrivateKey(private)))
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(strings.Repeat("certificate", 40))})
	wg := "uLDBvx" + "8PEuRDnHTYbMKyIy6vyy9Tm8rXDvRqzGqFuXs="
	hash := "$6$" + "saltsalt$" + strings.Repeat("aB3./", 17) + "a"
	signing := "cache.example.org-1:" + base64.StdEncoding.EncodeToString(private)
	signature := "cache.example.org-1:" + base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte("x")))
	const key1 = "private key"
	for title, c := range map[string]struct{ text, want string }{
		"OpenSSH":               {begin("OPENSSH PRIVATE") + "b3BlbnNzaC1rZXktdjEA", key1},
		"PKCS 8":                {begin("PRIVATE") + "MC4CAQAw", key1},
		"RSA":                   {begin("RSA PRIVATE") + "MIIEowIBAAKCAQEA", key1},
		"EC with Windows lines": {strings.ReplaceAll(begin("EC PRIVATE")+"MHcCAQEE\n", "\n", "\r\n"), key1},
		"encrypted":             {begin("RSA PRIVATE") + "Proc-Type: 4,ENCRYPTED\n", key1},
		"PGP":                   {"-----BEGIN PGP PRIVATE " + "KEY BLOCK-----\n\nlQOYBF", key1},
		"SSH2":                  {"---- BEGIN SSH2 ENCRYPTED PRIVATE " + "KEY ----\nComment: x", key1},
		"in Nix":                {"{ key = ''\n    " + begin("OPENSSH PRIVATE") + "    b3BlbnNzaC1rZXktdjEA\n''; }", key1},
		"in JSON":               {`{"key":"` + strings.TrimSuffix(begin("PRIVATE"), "\n") + `\nMC4CAQAw"}`, key1},
		"after other text":      {"Bag Attributes\n    friendlyName: x\n" + key, key1},
		"after binary":          {"\x00\x01\xff" + key, key1},
		"after 64 KiB":          {strings.Repeat("x", 70<<10) + key, key1},
		"after a megabyte":      {strings.Repeat("xyz\n", 1<<18) + key + strings.Repeat("x\n", 1<<17), key1},
		"PuTTY":                 {"PuTTY-User-Key-File-" + "3: ssh-ed25519\nEncryption: none", "PuTTY private key"},
		"age":                   {"# public key: age1xyz\nAGE-SECRET-" + "KEY-1" + strings.Repeat("Q", 58), "age secret key"},
		"minisign":              {"untrusted comment: minisign encrypted secret key\n" + blob, "minisign or signify secret key"},
		"Nix cache":             {"cache.example.org-1:" + blob[:86] + "==\n", "Nix signing key"},
		"Nix cache in Nix":      {"{ key = builtins.toFile \"k\" \"" + signing + "\"; }", "Nix signing key"},
		"gzip":                  {gz(strings.Repeat("a line\n", 90000) + key), key1},
		"gzip in base64":        {"data: " + b64(gz(key)), key1},
		"base64":                {"tls.key: " + b64(key) + "\n", key1},
		"base64, shifted":       {"tls.key: " + b64("xx"+key) + "\n", key1},
		"base64, folded":        {folded(b64(key)), key1},
		"base64 twice":          {b64(gz(b64(key))), key1},
		"UTF-16 with a mark":    {"\xff\xfe" + wide(key, littleEnd), key1},
		"UTF-16 big end first":  {"\xfe\xff" + wide("some text\r\n"+key, bigEnd), key1},
		"UTF-16 without a mark": {wide("# a file from Windows\r\n"+key, littleEnd), key1},
		"DER PKCS 8":            {pkcs8, key1},
		"DER PKCS 1":            {string(x509.MarshalPKCS1PrivateKey(rsaKey)), key1},
		"DER SEC 1":             {string(must(x509.MarshalECPrivateKey(ecKey))), key1},
		"PKCS 12":               {"\x30\x1d\x02\x01\x03\x30\x18\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x0b\x04\x09\x30\x07\x30\x05\x06\x03\x2a\x03\x04", "PKCS #12 key store"},
		"PKCS 12, large": {"\x30\x83\x04\x00\x15\x02\x01\x03\x30\x83\x04\x00\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01" +
			strings.Repeat("\x00", 1<<18+2), "PKCS #12 key store"},
		"zip":                 {zipOf(t, nil, "a.txt", "nothing", "keys/id", key), key1},
		"zip, not packed":     {rawZip(t, zip.Store, "a.txt", "nothing", "keys/id.der", pkcs8), key1},
		"zip in zip":          {zipOf(t, nil, "a.zip", zipOf(t, nil, "b", strings.Repeat("a line\n", 90000)+key)), key1},
		"zip, sizes before":   {rawZip(t, zip.Deflate, "a.txt", "nothing", "keys/id", key), key1},
		"netrc in a zip":      {zipOf(t, nil, "home/.netrc", "machine example.org login alice password hunter2"), "password of .netrc"},
		"WireGuard":           {"[Interface]\nPrivateKey = " + wg + "\nAddress = 10.0.0.1/24\n", "WireGuard key"},
		"networkd":            {"[WireGuard]\nPrivateKey=" + wg + "\n", "WireGuard key"},
		"WireGuard in Nix":    {"{ networking.wireguard.interfaces.wg0.privateKey = \"" + wg + "\"; }", "WireGuard key"},
		"WireGuard preshared": {"[Peer]\nPresharedKey = " + wg, "WireGuard key"},
		"NetworkManager":      {"[wireguard]\nprivate-key=" + wg, "WireGuard key"},
		"kubeconfig":          {"users:\n- name: a\n  user:\n    client-key-data: " + b64(begin("RSA PRIVATE")+blob) + "\n", key1},
		"JWK":                 {`{"kty":"EC","crv":"P-256","x":"` + blob[:43] + `","y":"` + blob[:43] + `","d":"` + blob[:43] + `"}`, "JSON web key"},
		"JWK, d first":        {`{ "d" : "` + blob[:43] + `", "key_ops": ["sign"], "kty" : "OKP" }`, "JSON web key"},
		"JWK, secret":         {`{"keys":[{"k":"` + blob[:43] + `","kty":"oct"}]}`, "JSON web key"},
		"GitHub":              {"url = https://x:ghp" + "_a8B7c6D5e4F3g2H1i0J9k8L7m6N5o4P3q2R1@github.com/x", "access token"},
		"Slack":               {"token: xoxb" + "-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx", "access token"},
		"shadow":              {"root:" + hash + ":19000:0:99999:7:::\nbin:*:1::::::\n", "password hash"},
		"shadow, yescrypt":    {"a:!:1::::::\nalice:$y" + "$j9T$" + strings.Repeat("aB3.", 5) + "$" + strings.Repeat("xY7/", 10) + ":19000:::::\n", "password hash"},
		"hash alone":          {hash + "\n", "password hash"},

		"public PEM":                 {begin("PUBLIC") + "MCowBQYDK2Vw", ""},
		"certificate":                {string(certificate), ""},
		"certificate in base64":      {"certificate-authority-data: " + b64(string(certificate)), ""},
		"SSH public key":             {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 alice@x", ""},
		"public key in DER":          {string(must(x509.MarshalPKIXPublicKey(public))), ""},
		"RSA public key in DER":      {string(x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)), ""},
		"minisign public key":        {"untrusted comment: minisign public key ABC\n" + blob[:56], ""},
		"Nix public key":             {"cache.example.org-1:" + blob[:43] + "=", ""},
		"Nix signature":              {"Sig: " + signature + "\n", ""},
		"SHA-512":                    {"sha512 = \"sha512:" + b64(strings.Repeat("x", 64)) + "\";", ""},
		"age recipient":              {"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", ""},
		"header in a program":        {`if strings.Contains(s, "` + strings.TrimSuffix(begin("PRIVATE"), "\n") + `") {`, ""},
		"header in documentation":    {begin("OPENSSH PRIVATE") + "...\n", ""},
		"header in base64 text":      {b64("it begins with " + begin("PRIVATE") + "..."), ""},
		"placeholder":                {begin("PRIVATE") + "<your key>", ""},
		"age key in documentation":   {"AGE-SECRET-" + "KEY-1...", ""},
		"nothing":                    {"", ""},
		"words about a private key":  {"keep your PRIVATE KEY safe", ""},
		"untrusted comment in prose": {"untrusted comment: about a secret key\nand more", ""},
		"WireGuard public key":       {"[Peer]\nPublicKey = " + wg, ""},
		"WireGuard placeholder":      {"PrivateKey = " + strings.Repeat("A", 43) + "=", ""},
		"WireGuard by file":          {`privateKeyFile = "/run/keys/wg"; PrivateKey = @PRIVATE@`, ""},
		"public JWK":                 {`{"kty":"RSA","n":"` + blob + `","e":"AQAB","x5c":["` + blob + `"]} {"d":"` + blob + `"}`, ""},
		"GitHub placeholder":         {"GITHUB_TOKEN=ghp" + "_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", ""},
		"a word before a token":      {"aghp" + "_a8B7c6D5e4F3g2H1i0J9k8L7m6N5o4P3q2R1", ""},
		"shadow without passwords":   {"root:*:19000:0:99999:7:::\nalice:!:1::::::\n", ""},
		"hashedPassword":             {"{ users.users.alice.hashedPassword = \"" + hash + "\"; }", ""},
		"gzip without":               {gz("hello"), ""},
		"gzip that is broken":        {gz(key)[:12], ""},
		"zip without":                {zipOf(t, nil, "a", "hello", "b", strings.Repeat("more", 1000)), ""},
		"zip that is broken":         {zipOf(t, nil, "a", key)[:50], ""},
		"zip that is encrypted":      {zipOf(t, func(h *zip.FileHeader) { h.Flags |= 1 }, "a", key), ""},
		"the beginning of PKCS 12":   {"\x30\x83\x04\x00\x15\x02\x01\x03\x30\x83\x04\x00\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01" + strings.Repeat("\x00", 1<<18), ""},
		"a password in .netrc's way": {"machine example.org login alice password secret", ""},
	} {
		t.Run(title, func(t *testing.T) {
			for _, size := range []int{1 << 30, 128 << 10, 1000} {
				if size == 1000 && (strings.HasPrefix(title, "DER") || title == "PKCS 12" || len(c.text) > 1<<20) {
					continue // a binary key is looked at as a whole
				}
				if got := scan("file", c.text, size); got != c.want {
					t.Errorf("in parts of %d bytes: got %q, want %q", size, got, c.want)
				}
			}
		})
	}
}

func must2(public ed25519.PublicKey, private ed25519.PrivateKey, err error) (ed25519.PublicKey, ed25519.PrivateKey) {
	if err != nil {
		panic(err)
	}
	return public, private
}

// folded is text in lines of 76 characters, as base64(1) writes it.
func folded(text string) string {
	var b strings.Builder
	for len(text) > 76 {
		b.WriteString(text[:76] + "\n")
		text = text[76:]
	}
	return b.String() + text + "\n"
}

// TestABombIsNotUnpackedForEver has archives in an archive that would unpack to more than is looked at: the key behind them is not looked for.
func TestABombIsNotUnpackedForEver(t *testing.T) {
	bomb := rawZip(t, zip.Deflate, "zeros", strings.Repeat("\x00", maxUnpacked/4))
	var files []string
	for i := range 20 {
		files = append(files, fmt.Sprint(i), bomb)
	}
	// It is long enough to be packed.
	key := strings.Repeat("a line\n", 1000) + begin("PRIVATE") + "MC4CAQAwBQYDK2VwBCIEIAEjRWeJq83vASNFZ4mrze8B\n"
	if got := scan("bomb.zip", rawZip(t, zip.Deflate, append(files, "id", key)...), 128<<10); got != "" {
		t.Errorf("got %q", got)
	}
	if got := scan("one.zip", rawZip(t, zip.Deflate, "zeros", bomb, "id", key), 128<<10); got != "private key" {
		t.Errorf("got %q", got)
	}
}

// TestNetrcIsKnownByItsName: elsewhere the same words are documentation.
func TestNetrcIsKnownByItsName(t *testing.T) {
	text := "machine example.org\n  login alice\n  password hunter2\n"
	for name, want := range map[string]string{
		"home/.netrc": "password of .netrc", "netrc": "password of .netrc", "nix-netrc": "password of .netrc", "netrc.nix": "password of .netrc",
		"README.md": "", "netrcs": "",
	} {
		if got := scan(name, text, 1<<20); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := scan(".netrc", "machine example.org login alice password <secret>\n", 1<<20); got != "" {
		t.Errorf("a placeholder: got %q", got)
	}
}

// TestWhatIsEncryptedIsNoSecret has a sample of each form.
func TestWhatIsEncryptedIsNoSecret(t *testing.T) {
	random := make([]byte, 4000)
	for i := range random {
		random[i] = byte(i*7919>>3 ^ i*31)
	}
	blob := strings.TrimSuffix(folded(base64.StdEncoding.EncodeToString(random)), "\n")
	encrypted := "ENC[AES256_GCM,data:" + b64("some bytes") + ",iv:" + b64(string(random[:32])) + ",tag:" + b64(string(random[:16])) + ",type:str]"
	armor := "-----BEGIN AGE ENCRYPTED FILE-----\n" + blob + "\n-----END AGE ENCRYPTED FILE-----\n"
	message := "-----BEGIN PGP MESSAGE-----\n\n" + blob + "\n=abcd\n-----END PGP MESSAGE-----\n"
	for title, text := range map[string]string{
		"age":           "age-encryption.org/v1\n-> X25519 " + b64(string(random[:32])) + "\n" + b64(string(random[:32])) + "\n--- " + b64(string(random[:32])) + "\n" + string(random),
		"armored age":   armor,
		"sops YAML":     "wireguard:\n    privateKey: " + encrypted + "\nsops:\n    age:\n        - recipient: age1x\n          enc: |\n            " + strings.ReplaceAll(armor, "\n", "\n            ") + "\n    mac: " + encrypted,
		"sops JSON":     `{"kty": "RSA", "d": "` + encrypted + `", "sops": {"pgp": [{"enc": "` + strings.ReplaceAll(message, "\n", `\n`) + `"}]}}`,
		"sops env":      "GITHUB_TOKEN=" + encrypted + "\nsops_version=3.9.0\nsops_mac=" + encrypted + "\n",
		"sops INI":      "[Interface]\nPrivateKey = " + encrypted + "\n[sops]\nversion = 3.9.0\nmac = " + encrypted + "\n",
		"sops binary":   `{"data": "` + encrypted + `", "sops": {"mac": "` + encrypted + `"}}`,
		"git-crypt":     "\x00GITCRYPT\x00" + string(random),
		"Ansible vault": "$ANSIBLE_VAULT;1.1;AES256\n" + fmt.Sprintf("%x", random) + "\n",
		"GPG armored":   message,
		"GPG":           "\x85\x02\x0c\x03" + string(random),
		"transcrypt":    "U2FsdGVkX1" + blob,
	} {
		for _, name := range []string{"secrets/file", ".netrc"} {
			if got := scan(name, text, 128<<10); got != "" {
				t.Errorf("%s: got %q", title, got)
			}
		}
	}
}

// TestTheFinderFindsEveryWordEverywhere puts each mark at each of some places, next to others.
func TestTheFinderFindsEveryWordEverywhere(t *testing.T) {
	table := newTable()
	for n, k := range table.kinds {
		for shift := range 5 {
			text := strings.Repeat("x", shift) + k.mark + k.mark + strings.Repeat("x", shift)
			var ends []int
			table.marks.each([]byte(text), func(word, end int) {
				if word == n && !slices.Contains(ends, end) {
					ends = append(ends, end)
				}
			})
			if !slices.Contains(ends, shift+len(k.mark)) || !slices.Contains(ends, shift+2*len(k.mark)) {
				t.Errorf("%q at %d: found at %v", k.mark, shift, ends)
			}
		}
	}
}

// FuzzScanner reads anything, in any parts.
func FuzzScanner(f *testing.F) {
	f.Add([]byte("0\x82\x01\x00\x02\x01\x00"), 10)
	f.Add([]byte(gz("kty\" PRIVATE KEY")), 3)
	f.Add([]byte("PK\x03\x04\x14\x00\x08\x00\x08\x00aaaabbbbccccddddeeeef\x01\x00\x00\x00x\x01"), 9)
	f.Fuzz(func(_ *testing.T, text []byte, size int) {
		scan("x", string(text), max(1, size))
	})
}

func BenchmarkScanner(b *testing.B) {
	text := bytes.Repeat([]byte("  services.nginx.virtualHosts.\"example.org\" = { locations.\"/\".root = pkgs.site; };\n"), 1500)
	s := New()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if s.Read("x", text, true) != "" {
			b.Fatal("found something")
		}
	}
}

func BenchmarkHash(b *testing.B) {
	text := bytes.Repeat([]byte("  services.nginx.virtualHosts.\"example.org\" = { locations.\"/\".root = pkgs.site; };\n"), 1500)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		sha256.Sum256(text)
	}
}
