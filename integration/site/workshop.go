package site

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/lab"
)

// Workshop is a builder with ferry and nixpkgs on it, where many tests work at once, each in a project of its own. It ends
// with the lab.
type Workshop struct {
	Builder  *lab.Builder
	Nixpkgs  string // in its store
	password string // a file with lab.Password

	projects atomic.Int64

	mu     sync.Mutex
	system map[string]string // by what they are for, the toplevels of systems that ferry has not deployed
}

// workshops are those that tests share, by what they are like.
var workshops struct {
	sync.Mutex
	shared map[lab.BuilderOptions]func() (*Workshop, error)
}

// WorkshopFor gives a builder like o: one that others use too, or a fresh one.
func WorkshopFor(t *testing.T, o lab.BuilderOptions, alone bool) *Workshop {
	t.Helper()
	open := func() (*Workshop, error) { return openWorkshop(Root(t), o) }
	if !alone {
		workshops.Lock()
		if workshops.shared == nil {
			workshops.shared = map[lab.BuilderOptions]func() (*Workshop, error){}
		}
		if workshops.shared[o] == nil {
			workshops.shared[o] = sync.OnceValues(open)
		}
		open = workshops.shared[o]
		workshops.Unlock()
	}
	w, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if alone {
		t.Cleanup(func() {
			if err := w.Builder.Close(); err != nil {
				t.Errorf("close builder: %v", err)
			}
		})
	}
	return w
}

func openWorkshop(checkout string, o lab.BuilderOptions) (*Workshop, error) {
	ctx := context.Background()
	builder, err := lab.OpenBuilder(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := builder.Install(filepath.Join(checkout, "bin/ferry")); err != nil {
		return nil, err
	}
	// Named source, as a fetched tree is: so Nix uses it where it is.
	tree := filepath.Join(builder.Home(), "source")
	if _, err := builder.Output(ctx, "cp", "-R", lab.NixpkgsPath, tree); err != nil {
		return nil, err
	}
	nixpkgs, err := builder.Output(ctx, "nix-store", "--add", tree)
	if err != nil {
		return nil, err
	}
	password := filepath.Join(builder.Home(), "password")
	if err := builder.WriteFile(password, []byte(lab.Password+"\n"), 0o600); err != nil {
		return nil, err
	}
	return &Workshop{Builder: builder, Nixpkgs: strings.TrimSpace(string(nixpkgs)), password: password, system: map[string]string{}}, nil
}

// NewProject names a folder that no other test uses.
func (w *Workshop) NewProject() string {
	return filepath.Join(w.Builder.Home(), fmt.Sprintf("project%d", w.projects.Add(1)))
}

// installed is the toplevel of a system that ferry knows nothing of, as an installer would leave it.
func (w *Workshop) installed(t *testing.T, system string) string {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.system[system] != "" {
		return w.system[system]
	}
	file := filepath.Join(w.Builder.Home(), "installed.nix")
	if err := w.Builder.WriteFile(file, []byte(Configuration("installed")), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := w.Builder.Output(t.Context(), "nix-build", "--out-link", file+"-"+system, w.Nixpkgs+"/nixos", "-A", "system",
		"--argstr", "system", system, "--arg", "configuration", file)
	if err != nil {
		t.Fatal(err)
	}
	w.system[system] = strings.TrimSpace(string(out))
	return w.system[system]
}
