package bench

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// site is a building machine and a target behind a relay, both new, with a system of the wanted size to deploy.
type site struct {
	t       *testing.T
	builder *lab.Builder
	target  *lab.Target
	relay   *lab.Relay
	nixpkgs string
	word    string // what the deployed system's /etc/greeting says
}

// host is the target's name on the building machine: behind the relay.
const host = "measured"

func newSite(t *testing.T, c closure, l link) *site {
	t.Helper()
	s := &site{t: t}
	var err error
	s.builder, err = lab.OpenBuilder(t.Context(), lab.BuilderOptions{})
	s.ok(err)
	s.target, err = lab.Start(t.Context(), lab.Options{})
	s.ok(err)
	checkout, err := filepath.Abs("../..")
	s.ok(err)
	s.ok(s.builder.Install(filepath.Join(checkout, "bin/ferry")))
	s.output("cp", "-r", lab.NixpkgsPath, s.path("source"))
	s.nixpkgs = s.output("nix-store", "--add", s.path("source"))
	s.payload(c)
	s.write("ferry.nix", fmt.Sprintf(`{ nixpkgs = %q; nodes.web = { configuration = ./configuration.nix; target = "root@%s"; }; }`, s.nixpkgs, host))
	s.byHand()
	s.change(0)
	// A first system, as an installer leaves it: the tools of every system are there, what is measured is not.
	s.write("../installed.nix", `{ networking.hostName = "web"; services.openssh.enable = true; }`)
	installed := s.output("nix-build", "--no-out-link", s.nixpkgs+"/nixos", "-A", "system", "--arg", "configuration", s.path("installed.nix"))
	s.ok(s.target.InstallSystem(t.Context(), s.builder, installed))
	s.relay = lab.StartRelay(t, addrPort(s.target), lab.RelayOptions{Delay: l.delay})
	s.ok(s.builder.KnowThrough(host, s.relay, s.target))
	s.ok(s.target.Bandwidth(t.Context(), l.bits))
	return s
}

// byHand makes the folder by-hand beside the project, with the default.nix that makes the bundle without ferry. The system in
// it when that is written is none that is measured.
func (s *site) byHand() {
	s.t.Helper()
	s.write("configuration.nix", `{ networking.hostName = "web"; services.openssh.enable = true; }`)
	s.output("sh", "-c", `cd "$1" && ferry abandon --write ../by-hand`, "sh", s.path("project"))
	s.output("rm", "-r", s.path("by-hand/source"), s.path("by-hand/result"))
}

func (s *site) close() {
	s.relay.Close()
	s.ok(s.target.Stop())
	s.ok(s.builder.Close())
}

func (s *site) path(name string) string { return filepath.Join(s.builder.Home(), name) }

func (s *site) write(name, text string) {
	s.t.Helper()
	s.ok(s.builder.WriteFile(s.path(filepath.Join("project", name)), []byte(text), 0o644))
}

func (s *site) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) output(name string, args ...string) string {
	s.t.Helper()
	out, err := s.builder.Output(s.t.Context(), name, args...)
	s.ok(err)
	return strings.TrimSpace(string(out))
}

// change gives the system another file in /etc, and its one service another environment.
func (s *site) change(n int) {
	s.word = fmt.Sprintf("word %d", n)
	s.write("configuration.nix", fmt.Sprintf(`{ pkgs, ... }:
let known = p: builtins.appendContext p { ${p} = { path = true; }; };
in {
  networking.hostName = "web";
  services.openssh.enable = true;
  environment.etc."greeting".text = %q;
  system.extraDependencies = map known (import ./payload.nix);
  systemd.services.greeter = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000";
    environment.GREETING = %q;
  };
}
`, s.word, s.word))
}

// check makes sure that what was measured was a deployment: the target runs and boots what the project says.
func (s *site) check(after scenario) {
	s.t.Helper()
	greeting, err := s.target.Output(s.t.Context(), "cat", "/etc/greeting")
	s.ok(err)
	if string(greeting) != s.word {
		s.t.Fatalf("after %s the target greets with %q, want %q", after, greeting, s.word)
	}
	runs, err := s.target.Output(s.t.Context(), "readlink", "-f", "/run/current-system")
	s.ok(err)
	boots, err := s.target.Output(s.t.Context(), "readlink", "-f", "/nix/var/nix/profiles/system")
	s.ok(err)
	if string(runs) != string(boots) {
		s.t.Fatalf("after %s the target runs %s and boots %s", after, runs, boots)
	}
}

// payload puts store paths of real binaries into the builder's store: programs and libraries of Debian, in path-sized heaps.
func (s *site) payload(c closure) {
	s.t.Helper()
	files := binaries(s.t)
	folder := s.path("payload")
	size, next := c.bytes/int64(c.paths), 0
	var names []string
	for i := range c.paths {
		name := fmt.Sprintf("heap-%d", i)
		dir := filepath.Join(folder, name)
		s.ok(os.MkdirAll(s.builder.Path(dir), 0o755))
		for filled := int64(0); filled < size; next++ {
			// Every round through the files starts with other bytes, so that no two paths are equal.
			data, err := os.ReadFile(files[next%len(files)])
			s.ok(err)
			data = append([]byte(fmt.Sprintf("%d %d\n", i, next)), data...)
			data = data[:min(int64(len(data)), size-filled+4096)]
			s.ok(os.WriteFile(s.builder.Path(filepath.Join(dir, fmt.Sprint(next))), data, 0o644))
			filled += int64(len(data))
		}
		names = append(names, dir)
	}
	var list strings.Builder
	for len(names) > 0 {
		n := min(100, len(names))
		for p := range strings.FieldsSeq(s.output("nix-store", append([]string{"--add"}, names[:n]...)...)) {
			fmt.Fprintf(&list, "  %q\n", p)
		}
		names = names[n:]
	}
	s.ok(os.RemoveAll(s.builder.Path(folder)))
	s.write("payload.nix", "[\n"+list.String()+"]\n")
}

// binaries are the programs and libraries of this machine, the same for every measurement of a run.
func binaries(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, root := range []string{"/usr/bin", "/usr/lib"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			if info, err := entry.Info(); err == nil && info.Size() > 16<<10 && info.Size() < 4<<20 {
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 100 {
		t.Fatalf("only %d programs and libraries on this machine", len(files))
	}
	return files
}
