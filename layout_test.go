// Package ferry_test checks the layout of the whole checkout.
package ferry_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the map of doc/design.md: what each package may import of the others. Imports go downward only.
var mayImport = map[string][]string{
	"cmd/ferry":                          {"cli"},
	"cmd/ferry-agent":                    {"agent/server", "agent/receive"},
	"cmd/ferry-agents":                   {"run"},
	"cmd/ferry-lab":                      {"lab"},
	"internal/cli":                       {"action", "agent", "cause", "compare", "deploy", "examine", "fleet", "inventory", "leave", "logs", "nix", "preview", "prose", "remote", "run", "session", "ship", "status", "target", "ui", "verify"},
	"internal/ui":                        {"nix", "prose", "run", "session", "ship"},
	"internal/logs":                      {"run", "session"},
	"internal/fleet":                     {"deploy", "disk", "inventory", "preview", "session", "target"},
	"internal/deploy":                    {"action", "agent", "health", "inventory", "nix", "preview", "prose", "run", "session", "ship", "target"},
	"internal/preview":                   {"action", "agent", "cause", "checkout", "compare", "inventory", "nix", "run", "session", "ship"},
	"internal/status":                    {"agent", "inventory", "prose", "session"},
	"internal/examine":                   {"agent", "health", "inventory", "nix", "prose", "session", "ship", "status"},
	"internal/verify":                    {"agent", "cause", "inventory", "nix", "prose", "run", "session"},
	"internal/leave":                     {"action", "cause", "inventory", "nix", "run", "session", "target"},
	"internal/remote":                    {"inventory", "run", "session", "target"},
	"internal/session":                   {"agent", "inventory", "nix", "prose", "run", "ship", "target"},
	"internal/cause":                     {"nix"},
	"internal/compare":                   {"nix"},
	"internal/inventory":                 {"flake", "checkout", "health", "secret", "nix", "disk", "prose", "run"},
	"internal/flake":                     {"nix"},
	"internal/checkout":                  {"run"},
	"internal/secret":                    {},
	"internal/health":                    {"prose", "run"},
	"internal/action":                    {"agent", "nix"},
	"internal/ship":                      {"agent", "target", "delta", "nix", "run", "disk"},
	"internal/agent":                     {"target", "nix", "run"},
	"internal/agent/bootloader":          {"agent/machine", "run"},
	"internal/agent/lockout":             {"agent/machine", "userdb", "agent", "nix", "run"},
	"internal/agent/machine":             {"nix", "disk", "run"},
	"internal/agent/machine/machinetest": {"agent/machine"},
	"internal/agent/receive":             {"agent/machine", "agent", "delta", "nix", "disk", "run"},
	"internal/agent/server":              {"agent/bootloader", "agent/lockout", "agent/machine", "agent/receive", "agent/units", "userdb", "agent", "nix", "disk", "run"},
	"internal/agent/units":               {"agent/machine", "agent", "run"},
	"internal/userdb":                    {},
	"internal/agent/agenttest":           {"agent"},
	"internal/delta":                     {"nix"},
	"internal/target":                    {"run"},
	"internal/nix":                       {"run"},
	"internal/disk":                      {},
	"internal/prose":                     {},
	"internal/run":                       {},
	"internal/lab":                       {},
}

// TestImportsGoDownwardOnly locks the directions of doc/design.md for everything but tests.
func TestImportsGoDownwardOnly(t *testing.T) {
	files := 0
	walk(t, func(path, folder string) {
		files++
		allowed, known := mayImport[folder]
		if !known {
			t.Errorf("%s: package %s is not in the map of doc/design.md", path, folder)
			return
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			name := strings.Trim(spec.Path.Value, `"`)
			if inner, ours := strings.CutPrefix(name, "ferry/internal/"); ours && !slices.Contains(allowed, inner) {
				t.Errorf("%s imports %s: not downward", path, name)
			}
			if name == "os/exec" && folder != "internal/run" && folder != "internal/lab" {
				t.Errorf("%s imports os/exec: only internal/run starts processes", path)
			}
		}
	})
	if files < 20 {
		t.Fatalf("only %d files were checked", files)
	}
}

// TestOnlyOnePackageStartsProcesses locks that the calls below os/exec are made where the others are.
func TestOnlyOnePackageStartsProcesses(t *testing.T) {
	walk(t, func(path, folder string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range []string{"os.StartProcess(", "syscall.ForkExec(", "syscall.StartProcess("} {
			if strings.Contains(string(text), call) && folder != "internal/run" && folder != "internal/lab" {
				t.Errorf("%s calls %s: only internal/run starts processes", path, strings.TrimSuffix(call, "("))
			}
		}
	})
}

// TestOnlyOnePackageStartsGit locks that no git runs with what a checkout has configured: internal/checkout sees to that.
func TestOnlyOnePackageStartsGit(t *testing.T) {
	walk(t, func(path, folder string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), `"git",`) && folder != "internal/checkout" {
			t.Errorf("%s starts git: only internal/checkout does", path)
		}
	})
}

// TestNoFileDoesTooMuch bounds the length of a file.
func TestNoFileDoesTooMuch(t *testing.T) {
	walk(t, func(path, _ string) {
		set := token.NewFileSet()
		if _, err := parser.ParseFile(set, path, nil, parser.PackageClauseOnly); err != nil {
			t.Fatal(err)
		}
		set.Iterate(func(f *token.File) bool {
			if f.LineCount() > 600 {
				t.Errorf("%s has %d lines: more than 600", path, f.LineCount())
			}
			return true
		})
	})
}

func walk(t *testing.T, visit func(path, folder string)) {
	t.Helper()
	for _, root := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			visit(path, filepath.ToSlash(filepath.Dir(path)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
