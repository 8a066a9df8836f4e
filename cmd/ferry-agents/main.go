// Command ferry-agents builds ferry-agent for every machine that ferry deploys to, and packs the programs for ferry to embed. It
// needs Go and nothing else, on any system that Go builds on. Nothing of the checkout's state gets into an agent, so that the
// same source gives the same content hash everywhere.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"ferry/internal/run"

	"github.com/klauspost/compress/gzip"
)

// machine is what an agent is built for: its name as uname -m says it, and the same for Go.
type machine struct{ name, goarch, goarm string }

func machines() []machine {
	return []machine{
		{"x86_64", "amd64", ""}, {"i686", "386", ""}, {"aarch64", "arm64", ""}, {"armv7l", "arm", "7"}, {"armv6l", "arm", "6"},
		{"riscv64", "riscv64", ""},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: ferry-agents DIR   (from the root of ferry's source; DIR is internal/agent/embedded)")
		os.Exit(10)
	}
	if err := pack(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "ferry-agents: error:", err)
		os.Exit(1)
	}
}

// pack fills dir with agent-MACHINE.gz for each machine, and with index: a line for each with machine, SHA-256 of the program in
// base 16, and the size of the packed file in bytes. What dir had before stays until all are built.
func pack(ctx context.Context, dir string) error {
	scratch, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	var index bytes.Buffer
	for _, m := range machines() {
		program, err := build(ctx, filepath.Join(scratch, "agent"), m)
		if err != nil {
			return err
		}
		packed, err := compressed(program)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(scratch, fileName(m)), packed, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&index, "%s %x %d\n", m.name, sha256.Sum256(program), len(packed))
	}
	if err := os.WriteFile(filepath.Join(scratch, "index"), index.Bytes(), 0o644); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "agent-*.gz"))
	if err != nil {
		return err
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	for _, m := range machines() {
		if err := os.Rename(filepath.Join(scratch, fileName(m)), filepath.Join(dir, fileName(m))); err != nil {
			return err
		}
	}
	return os.Rename(filepath.Join(scratch, "index"), filepath.Join(dir, "index"))
}

func fileName(m machine) string { return "agent-" + m.name + ".gz" }

// build gives the agent for one machine; file is where the compiler puts it meanwhile.
func build(ctx context.Context, file string, m machine) ([]byte, error) {
	err := new(run.Runner).Run(ctx, run.Command{
		Argv: []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", file, "./cmd/ferry-agent"},
		Env:  []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + m.goarch, "GOARM=" + m.goarm, "GOFLAGS="},
		Out:  os.Stderr, Err: os.Stderr,
	})
	if err != nil {
		return nil, fmt.Errorf("agent for %s: %w", m.name, err)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(string(program), "\x7fELF") {
		return nil, fmt.Errorf("agent for %s: what go build made is no ELF program", m.name)
	}
	return program, os.Remove(file)
}

// compressed packs without name and time, which would differ from build to build.
func compressed(program []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
