package nix

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// useRealNix points the Nix of this machine at settings that need neither a network nor build users. What a test adds to
// the store stays there as garbage; the tests are run with a /nix of their own for that reason.
func useRealNix(t *testing.T) {
	t.Helper()
	conf := t.TempDir()
	settings := "sandbox = false\nbuild-users-group =\nsubstituters =\nbuilders =\n"
	if err := os.WriteFile(filepath.Join(conf, "nix.conf"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NIX_CONF_DIR", conf)
	t.Setenv("NIX_USER_CONF_FILES", "")
	t.Setenv("NIX_REMOTE", "")
	t.Setenv("NIX_PATH", "")
}

// output runs argv and returns its standard output.
func output(t *testing.T, argv ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, stderr.Bytes())
	}
	return out.Bytes()
}

// addReal puts the file or folder at path in the real store.
func addReal(t *testing.T, path string) StorePath {
	t.Helper()
	p, err := ParseStorePath(strings.TrimSpace(string(output(t, "nix-store", "--add", path))))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// dial starts nix-store --serve --write with more arguments and greets it.
func dial(t *testing.T, args ...string) (s *Serve, stderr *bytes.Buffer, end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "nix-store", append([]string{"--serve", "--write"}, args...)...)
	stderr = &bytes.Buffer{}
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s, err = NewServe(out, in)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	return s, stderr, func() error {
		_ = in.Close()
		return cmd.Wait()
	}
}
