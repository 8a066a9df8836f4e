package cause

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/nix"
)

var update = flag.Bool("update", false, "write the golden files anew")

// machine is one side of a comparison: a tree of nixpkgs and a configuration, and how they are evaluated.
type machine struct {
	t       *testing.T
	nixpkgs string
	config  string
	args    []string
	env     []string
}

// newMachine makes a side with the lab's nixpkgs, in folders of its own.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, nixpkgs: filepath.Join(t.TempDir(), "nixpkgs"), config: filepath.Join(t.TempDir(), "web")}
	if err := os.CopyFS(m.nixpkgs, os.DirFS("../../lab/nixpkgs")); err != nil {
		t.Fatal(err)
	}
	for _, system := range []string{"x86_64-linux", "aarch64-linux"} {
		// Nothing is built, so this need not be a program.
		m.write(m.nixpkgs+"/bootstrap/"+system+"/busybox", "")
		m.write(m.nixpkgs+"/bootstrap/"+system+"/version", "1.35.0\n")
	}
	m.write(m.config+"/configuration.nix", configuration(""))
	return m
}

// configuration is a system's. Nothing of it is built, so it has the switch program that need not be.
func configuration(more string) string {
	return `{ pkgs, ... }: { system.switch.rules = "script"; networking.hostName = "web"; environment.etc."one".text = "1"; environment.etc."two".text = "2"; ` + more + ` }`
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// evaluate gives the system's derivation.
func (m *machine) evaluate() nix.StorePath {
	m.t.Helper()
	args := append([]string{m.nixpkgs + "/nixos", "-A", "system", "--arg", "configuration", m.config + "/configuration.nix"}, m.args...)
	cmd := exec.CommandContext(m.t.Context(), "nix-instantiate", args...)
	cmd.Env = append(os.Environ(), m.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	p, err := nix.ParseStorePath(strings.TrimSpace(string(out)))
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}

// useNix needs a store that may be written to: lab/private-store gives one.
func useNix(t *testing.T) {
	t.Helper()
	conf := t.TempDir()
	if err := os.WriteFile(filepath.Join(conf, "nix.conf"), []byte("sandbox = false\nbuild-users-group =\nsubstituters =\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NIX_CONF_DIR", conf)
	t.Setenv("NIX_REMOTE", "")
	t.Setenv("NIX_PATH", "")
}

// inStore reads derivations where they are.
func inStore(_ context.Context, drvs []nix.StorePath) (map[nix.StorePath]string, error) {
	texts := map[nix.StorePath]string{}
	for _, drv := range drvs {
		text, err := os.ReadFile(string(drv))
		if err != nil {
			return nil, err
		}
		texts[drv] = string(text)
	}
	return texts, nil
}

// TestEveryCauseIsFoundAndSaid makes each cause of another derivation real, and locks what a person reads of it.
func TestEveryCauseIsFoundAndSaid(t *testing.T) {
	useNix(t)
	for name, change := range map[string]func(a, b *machine){
		"same": func(_, _ *machine) {},
		"version-suffix": func(_, b *machine) {
			b.write(b.nixpkgs+"/.version-suffix", ".1234.abcdef0")
		},
		"git-revision": func(_, b *machine) {
			b.write(b.nixpkgs+"/.git-revision", "0123456789abcdef0123456789abcdef01234567")
		},
		"git-checkout": func(_, b *machine) {
			b.write(b.nixpkgs+"/.git/HEAD", "0123456789abcdef0123456789abcdef01234567\n")
		},
		"wrapper": func(a, b *machine) {
			for _, m := range []*machine{a, b} {
				m.write(m.config+"/packages.nix", `{ pkgs, ... }: { environment.systemPackages = [ pkgs.gawk ]; }`)
				m.write(m.config+"/configuration.nix", configuration(`imports = [ ./packages.nix ]; environment.systemPackages = [ pkgs.less ];`))
			}
			// What a list is made of comes in the order of the modules.
			b.write(b.config+"/inner.nix", configuration(`environment.systemPackages = [ pkgs.less ];`))
			b.write(b.config+"/configuration.nix", `{ imports = [ ./inner.nix ./packages.nix ]; }`)
		},
		"folder-name": func(a, b *machine) {
			for _, m := range []*machine{a, b} {
				m.write(m.config+"/configuration.nix", configuration(`environment.etc."site".source = ./.;`))
			}
			other := b.config + "-source"
			if err := os.Rename(b.config, other); err != nil {
				b.t.Fatal(err)
			}
			b.config = other
		},
		"file-content": func(a, b *machine) {
			for i, m := range []*machine{a, b} {
				m.write(m.config+"/page.html", fmt.Sprintf("turn %d\n", i))
				m.write(m.config+"/configuration.nix", configuration(`environment.etc."page".source = ./page.html;`))
			}
		},
		"to-string-of-a-path": func(a, b *machine) {
			for _, m := range []*machine{a, b} {
				m.config = "/tmp/" + filepath.Base(filepath.Dir(m.config)) + filepath.Base(m.t.TempDir())
				m.t.Cleanup(func() { _ = os.RemoveAll(m.config) })
				m.write(m.config+"/configuration.nix", configuration(`environment.etc."place".text = "see " + toString ./page.html;`))
			}
		},
		"get-env-pure": func(a, b *machine) {
			a.write(a.config+"/configuration.nix", strings.Replace(configuration(""), `"1"`, `""`, 1))
			// What builtins.getEnv gives in Nix's pure mode is nothing.
			b.write(b.config+"/configuration.nix", strings.Replace(configuration(""), `"1"`, `"alice"`, 1))
		},
		"extra-file": func(_, b *machine) {
			b.write(b.config+"/configuration.nix", configuration(`environment.etc."three".text = "3";`))
		},
		"another-text": func(_, b *machine) {
			b.write(b.config+"/configuration.nix", strings.Replace(configuration(""), `"1"`, `"one"`, 1))
		},
		"another-system": func(_, b *machine) {
			b.args = []string{"--argstr", "system", "aarch64-linux"}
		},
		"get-env": func(a, b *machine) {
			for i, m := range []*machine{a, b} {
				m.write(m.config+"/configuration.nix", configuration(`environment.etc."home".text = "I am at ${builtins.getEnv "HOME"}\n";`))
				m.env = []string{fmt.Sprintf("HOME=/home/%s", []string{"alice", "root"}[i])}
			}
		},
		"time": func(a, b *machine) {
			for i, m := range []*machine{a, b} {
				// What builtins.currentTime gives.
				m.write(m.config+"/configuration.nix", configuration(fmt.Sprintf(`environment.etc."built".text = "at ${toString %d}";`, 1700000000+1234*i)))
			}
		},
		"nix-version": func(a, b *machine) {
			for i, m := range []*machine{a, b} {
				// What builtins.nixVersion gives.
				m.write(m.config+"/configuration.nix", configuration(fmt.Sprintf(`environment.etc."nix".text = "made by %s";`, []string{"2.8.0", "2.26.3"}[i])))
			}
		},
		"another-nixpkgs": func(_, b *machine) {
			text, err := os.ReadFile(b.nixpkgs + "/nixos/modules/system/setup-etc.sh")
			if err != nil {
				b.t.Fatal(err)
			}
			b.write(b.nixpkgs+"/nixos/modules/system/setup-etc.sh", string(text)+"# a fix\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newMachine(t), newMachine(t)
			change(a, b)
			report, err := Explain(t.Context(), a.evaluate(), b.evaluate(), inStore, inStore, Facts{NixBefore: "2.8.0", NixAfter: "2.26.3"})
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for _, c := range report.Causes {
				fmt.Fprintf(&text, "%s %s", c.Kind, c.Name)
				if len(c.PartOf) > 0 {
					fmt.Fprintf(&text, " (part of %s)", strings.Join(c.PartOf, ", "))
				}
				fmt.Fprintf(&text, "\n  %s\n", c.Text)
			}
			said := text.String()
			said = strings.ReplaceAll(strings.ReplaceAll(said, b.config, "/there"), a.config, "/here")
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				a.write(golden, said)
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if said != string(want) {
				t.Errorf("got\n%s\nwant\n%s", said, want)
			}
		})
	}
}

// TestWhatIsTheSameOfManyIsSaidOnce in whichever order they come, which is that of hashes.
func TestWhatIsTheSameOfManyIsSaidOnce(t *testing.T) {
	system, program, label := Cause{Kind: Version, Name: "system", Text: "one"}, Cause{Kind: Version, Name: "program", Text: "another"}, Cause{Kind: Version, Name: "label", Text: "one"}
	for _, causes := range [][]Cause{{system, label, program}, {system, program, label}, {program, system, label}} {
		said := map[string]string{}
		for _, c := range fold(slices.Clone(causes)) {
			said[c.Text] += "(" + c.Name + ")"
		}
		if want := map[string]string{"one": "()", "another": "(program)"}; !maps.Equal(said, want) {
			t.Errorf("%v", said)
		}
	}
}
