package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
	"ferry/internal/prose"
)

// shipTitle is the section of the page about shipping alone.
const shipTitle = "Shipping"

// shipCase is what the target has and what it is to get.
type shipCase struct {
	name string
	// old and next fill a folder each with folders, one for a store path of that name; no old: the target has nothing of it.
	old, next func(t *testing.T, dir string)
	links     []link
	tools     []shipTool // what brings it; nil: shipTools
}

// shipTool is a tool that ships, and what it finds when it begins.
type shipTool struct {
	tool
	master string // what begins a connection that it uses, as a script like the tool's
	limit  string // a line for the target's sshd_config
	// step says that ferry's step of shipping counts, of the events that the tool leaves in ../events, and not the whole command.
	step bool
}

// Those that are compared with others in more than one way.
var (
	ferryShips   = shipTool{tool: tool{byFerry, dryActivate}}
	closureShips = shipTool{tool: tool{byClosure, evaluated + `nix-copy-closure --to "root@$1" "$system"`}}
	ngShips      = shipTool{tool: tool{"nix copy, ssh-ng", evaluated + copied + `--to "ssh-ng://root@$1" "$system"`}}
)

// shipTools are ways to bring a system that is built to a target, as one script: $0 is nixpkgs, $1 the host. What they do there beside is
// nothing: ferry's dry-activate costs it a little.
var shipTools = []shipTool{
	ferryShips,
	closureShips,
	{tool: tool{"nix-copy-closure --gzip", evaluated + `nix-copy-closure --gzip --to "root@$1" "$system"`}},
	{tool: tool{"nix copy, ssh", evaluated + copied + `--to "ssh://root@$1" "$system"`}},
	{tool: tool{"nix copy, ssh, compressed", evaluated + copied + `--to "ssh://root@$1?compress=true" "$system"`}},
	ngShips,
	{tool: tool{"nix copy, ssh-ng, compressed", evaluated + copied + `--to "ssh-ng://root@$1?compress=true" "$system"`}},
	{tool: tool{rsync, `rsync -a --modify-window=-1 "$2/../trees/next/" "root@$1:` + rsynced + `"`}},
}

// keptTools have a connection already: ferry as it has in its step of shipping, nix-copy-closure as the master of a person.
var keptTools = []shipTool{
	{tool: tool{"ferry, its step of shipping", dryActivate + ` --json >../events`}, step: true},
	{tool: tool{byClosure, `NIX_SSHOPTS="-o ControlPath=$HOME/master" nix-copy-closure --to "root@$1" "$(readlink "../system")"`},
		master: `ssh -fNM -o "ControlPath=$HOME/master" "root@$1" >/dev/null 2>&1`},
}

// laneTools show what more than one channel of a connection brings.
var laneTools = []shipTool{
	ferryShips,
	{tool: tool{"ferry, one channel", dryActivate}, limit: "MaxSessions 1"},
	closureShips,
	ngShips,
}

// rsync is the yardstick from outside: it knows nothing of stores, and brings the trees that the store paths were made from to a folder
// that has the old ones.
const (
	rsync   = "rsync -a, the trees alone"
	rsynced = "/var/tmp/trees/"
)

const (
	dryActivate = `ferry deploy --action dry-activate`
	evaluated   = `system=$(nix-build --no-out-link "$0/nixos" -A system --arg configuration ./configuration.nix) && `
	copied      = `nix --extra-experimental-features nix-command copy --no-check-sigs `
)

// The links of most cases, of those that show what a fast link far away costs, and of those that are small enough for a slow one.
var (
	shipLinks = []link{{}, {delay: 20 * time.Millisecond, bits: 100_000_000}, {delay: 50 * time.Millisecond, bits: 20_000_000}}
	farLinks  = append(slices.Clip(shipLinks), link{delay: 100 * time.Millisecond})
	slowLinks = []link{{delay: 100 * time.Millisecond, bits: 5_000_000}}
)

func shipCases() []shipCase {
	near := link{delay: 50 * time.Millisecond}
	return []shipCase{
		{"80 MB in 100 paths, none of it there", nil, heaps(80<<20, 100, "a"), farLinks, nil},
		{"the same, every hash in it changed", heaps(80<<20, 100, "a"), heaps(80<<20, 100, "b"), farLinks, nil},
		{"the same, one path changed", heaps(80<<20, 100, "a"), oneChanged, append(slices.Clip(shipLinks), near), nil},
		{"the same, one path changed, over a connection that is there", heaps(80<<20, 100, "a"), oneChanged, []link{{}, near}, keptTools},
		{"10 MB in 10 paths, none of it there", nil, heaps(10<<20, 10, "a"), slowLinks, nil},
		{"10 MB in 10 paths, every hash in it changed", heaps(10<<20, 10, "a"), heaps(10<<20, 10, "b"), slowLinks, nil},
		{"128 MB in 8 paths that nothing makes smaller, none of it there", nil, random, []link{{delay: 100 * time.Millisecond}, {delay: 200 * time.Millisecond}}, laneTools},
		{"Debian packages, to their next point release", packages("old"), packages("new"), shipLinks, nil},
		{"a tree of 20,000 files, 300 of them edited", sourceTree(0), sourceTree(300), shipLinks, nil},
	}
}

// TestShippingIsMeasured runs a small case once with every tool; with -write all of them.
func TestShippingIsMeasured(t *testing.T) {
	old, next := heaps(1<<20, 4, "a"), heaps(1<<20, 4, "b")
	plan := []shipCase{
		{"1 MB", old, next, []link{{}}, nil},
		{"1 MB, over a connection that is there", old, next, []link{{}}, keptTools},
		{"1 MB, over one channel", old, next, []link{{}}, laneTools[1:3]},
	}
	n := 1
	if *write != "" {
		if !wanted(shipTitle) {
			return
		}
		plan, n = slices.DeleteFunc(shipCases(), func(c shipCase) bool { return !regexp.MustCompile(*cases).MatchString(c.name) }), *rounds
	}
	text := shipIntroduction()
	for _, c := range plan {
		c.measure(t, n, func(rows string) {
			text += rows
			if *write == "" {
				return
			}
			// After each link: a run that is ended early has not been for nothing.
			before, err := os.ReadFile(*write)
			if err == nil {
				err = os.WriteFile(*write, []byte(page(string(before), text)), 0o644)
			}
			ok(t, err)
		})
	}
	t.Log(text)
}

func shipIntroduction() string {
	return fmt.Sprintf("\n## %s\n\n%s", shipTitle, measuredOn()) + `Bringing a system that is built to a target that runs another one, and nothing else: ` +
		"`ferry deploy --action dry-activate`" + ` against nix-build (which only evaluates) and the tool. Ratios are to nix-copy-closure: of the time, and of the
bytes that went up. The file systems are warm. ferry sends the configuration and its nixpkgs with it. rsync is a yardstick from outside: it brings only the
files, over the old ones, and no store.

| case | link | tool | wall | ratio | up | ratio | CPU here | CPU target | memory target |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|
`
}

// measure gives the rows of each link.
func (c shipCase) measure(t *testing.T, rounds int, give func(rows string)) {
	t.Helper()
	s := &site{t: t}
	var err error
	s.builder, err = lab.OpenBuilder(t.Context(), lab.BuilderOptions{})
	s.ok(err)
	defer func() { s.ok(s.builder.Close()) }()
	s.prepare()
	s.write("old.nix", s.heapsOf("old", c.old))
	s.write("next.nix", s.heapsOf("next", c.next))
	tools := c.tools
	if tools == nil {
		tools = shipTools
	}
	for _, l := range c.links {
		var b strings.Builder
		collected := map[string][]figures{}
		n := rounds
		if l.bits > 0 {
			n = 1 // a slow link is not noisy
		}
		for range n {
			for _, tool := range tools {
				collected[tool.name] = append(collected[tool.name], s.ship(tool, l))
			}
		}
		base := median(collected[byClosure])
		for _, tool := range tools {
			f := median(collected[tool.name])
			fmt.Fprintf(&b, "| %s | %s | %s | %.2f s | **%.2f** | %s | **%.4f** | %.2f s | %.2f s | %s |\n", c.name, l, tool.name,
				f.wall.Seconds(), f.wall.Seconds()/base.wall.Seconds(), prose.Size(uint64(f.up)), float64(f.up)/float64(base.up),
				f.near.Seconds(), f.far.Seconds(), prose.Size(uint64(f.memory)))
		}
		give(b.String())
	}
}

// prepare makes the project.
func (s *site) prepare() {
	s.t.Helper()
	checkout, err := filepath.Abs("../..")
	s.ok(err)
	s.ok(s.builder.Install(filepath.Join(checkout, "bin/ferry")))
	s.output("cp", "-r", lab.NixpkgsPath, s.path("source"))
	s.nixpkgs = s.output("nix-store", "--add", s.path("source"))
	s.inventory()
}

// heapsOf adds what fill makes to the builder's store, and gives the paths as a list of Nix. The trees that they were made from stay in a
// folder of that name.
func (s *site) heapsOf(name string, fill func(t *testing.T, dir string)) string {
	s.t.Helper()
	folder := s.path(filepath.Join("trees", name))
	s.ok(os.MkdirAll(s.builder.Path(folder), 0o755))
	if fill == nil {
		return "[]\n"
	}
	fill(s.t, s.builder.Path(folder))
	entries, err := os.ReadDir(s.builder.Path(folder))
	s.ok(err)
	list := "[\n"
	for len(entries) > 0 {
		args := []string{"--add"}
		for _, e := range entries[:min(100, len(entries))] {
			args = append(args, filepath.Join(folder, e.Name()))
		}
		entries = entries[len(args)-1:]
		for p := range strings.FieldsSeq(s.output("nix-store", args...)) {
			list += fmt.Sprintf("  %q\n", p)
		}
	}
	return list + "]\n"
}

// system writes the configuration that has what is in a list, and builds it.
func (s *site) system(list string) string {
	s.t.Helper()
	s.write("configuration.nix", fmt.Sprintf(`{ pkgs, ... }:
let known = p: builtins.appendContext p { ${p} = { path = true; }; };
in {
  networking.hostName = "web";
  services.openssh.enable = true;
  system.extraDependencies = map known (import ./%s);
}
`, list))
	return s.output("nix-build", "--no-out-link", s.nixpkgs+"/nixos", "-A", "system", "--arg", "configuration", s.path("project/configuration.nix"))
}

// ship measures one tool once, with a target of its own that has the old system by the same tool.
func (s *site) ship(tool shipTool, l link) figures {
	s.t.Helper()
	var err error
	s.target, err = lab.Start(s.t.Context(), lab.Options{})
	s.ok(err)
	defer func() { s.ok(s.target.Stop()) }()
	s.ok(s.target.InstallSystem(s.t.Context(), s.builder, s.system("old.nix")))
	s.relay = lab.StartRelay(s.t, addrPort(s.target), lab.RelayOptions{Delay: l.delay})
	defer s.relay.Close()
	// The entry of the target before would come first.
	s.ok(s.builder.Forget())
	s.ok(s.builder.KnowThrough(host, s.relay, s.target))
	ferry := strings.HasPrefix(tool.script, dryActivate)
	if ferry {
		s.inProject("ferry deploy")
	} else if tool.name == rsync {
		s.output("rsync", "-a", s.path("trees/old")+"/", "root@"+host+":"+rsynced)
	}
	if tool.limit != "" {
		_, err = s.target.Output(s.t.Context(), "sh", "-c", `sed -i "1i $0" /etc/ssh/sshd_config && systemctl restart sshd`, tool.limit)
		s.ok(err)
	}
	s.ok(s.target.Bandwidth(s.t.Context(), l.bits))
	next := s.system("next.nix")
	if ferry {
		// As all the others, it finds what is to be shipped built.
		s.inProject("ferry build")
	}
	s.output("ln", "-sfn", next, s.path("system"))
	if tool.master != "" {
		s.inProject(tool.master)
		defer s.inProject(`ssh -O exit -o "ControlPath=$HOME/master" "root@$1"`)
	}
	f := s.measure(tool.tool)
	if tool.step {
		f.wall = s.stepOfShipping()
	}
	if tool.name == rsync {
		if left := s.output("rsync", "-anci", s.path("trees/next")+"/", "root@"+host+":"+rsynced); left != "" {
			s.t.Errorf("rsync has left:\n%s", left)
		}
		return f
	}
	_, err = s.target.Output(s.t.Context(), "nix-store", "--check-validity", next)
	s.ok(err)
	return f
}

// inProject runs a script as a tool's is run.
func (s *site) inProject(script string) {
	s.t.Helper()
	s.output("sh", "-c", `cd "$2" && `+script, s.nixpkgs, host, s.path("project"))
}

// stepOfShipping is how long the step of shipping took, by the events that a tool has left.
func (s *site) stepOfShipping() time.Duration {
	s.t.Helper()
	text, err := os.ReadFile(s.builder.Path(s.path("events")))
	s.ok(err)
	for line := range bytes.Lines(text) {
		var e struct {
			Event, Step string
			Seconds     float64
		}
		s.ok(json.Unmarshal(line, &e))
		if e.Event == "finished" && e.Step == "ship" {
			return time.Duration(e.Seconds * float64(time.Second))
		}
	}
	s.t.Fatalf("ferry has shipped nothing:\n%s", text)
	return 0
}

// heaps makes folders of real binaries, with something like store paths in them, every 8 kB, that have the generation in their hashes.
func heaps(size int64, count int, generation string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		files := binaries(t)
		next := 0
		for i := range count {
			folder := filepath.Join(dir, fmt.Sprintf("heap-%d", i))
			ok(t, os.MkdirAll(folder, 0o755))
			for filled := int64(0); filled < size/int64(count); next++ {
				data, err := os.ReadFile(files[next%len(files)])
				ok(t, err)
				data = append([]byte(fmt.Sprintf("%d %d\n", i, next)), data...)
				data = data[:min(int64(len(data)), size/int64(count)-filled+4096)]
				for at := 4096; at+64 < len(data); at += 8192 {
					copy(data[at:], "/nix/store/"+strings.Repeat(generation, 16)+fmt.Sprintf("%016d", (i*7+at/8192)%count)+"-heap")
				}
				ok(t, os.WriteFile(filepath.Join(folder, fmt.Sprint(next)), data, 0o644))
				filled += int64(len(data))
			}
		}
	}
}

// oneChanged are the heaps of generation a, of which one has the next one's hashes.
func oneChanged(t *testing.T, dir string) {
	t.Helper()
	heaps(80<<20, 100, "a")(t, dir)
	other := t.TempDir()
	heaps(80<<20, 100, "b")(t, other)
	const name = "heap-50"
	ok(t, os.RemoveAll(filepath.Join(dir, name)))
	ok(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(other, name))))
}

// random makes paths that do not compress.
func random(t *testing.T, dir string) {
	t.Helper()
	for i := range 8 {
		data := make([]byte, 16<<20)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		ok(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("random-", i)), data, 0o644))
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// packages copies what lab/point-releases has fetched: the older ones or the newer ones.
func packages(age string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if *releases == "" {
			t.Fatal("-releases says where the packages are; make bench does")
		}
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(*releases, age))); err != nil {
			t.Fatal(err)
		}
	}
}

// sourceTree makes a tree of Nix expressions as nixpkgs is one, of which some have been edited since.
func sourceTree(edited int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		const files = 20_000
		r := rand.New(rand.NewPCG(1, 1))
		letters := func(n int) string {
			var b bytes.Buffer
			for range n {
				b.WriteByte("0123456789abcdfghijklmnpqrsvwxyz"[r.IntN(32)])
			}
			return b.String()
		}
		for i := range files {
			name, version, hash := letters(8), fmt.Sprintf("%d.%d.%d", r.IntN(9), r.IntN(30), r.IntN(9)), letters(52)
			extra := strings.Repeat("    # what a maintainer has to say about it\n", r.IntN(40))
			if i%(files/max(edited, 1)) == 0 && edited > 0 {
				version, hash = version+".1", strings.Repeat(name[:4], 13)
			}
			folder := filepath.Join(dir, "nixpkgs/pkgs", fmt.Sprintf("%02d", i%60), name)
			ok(t, os.MkdirAll(folder, 0o755))
			ok(t, os.WriteFile(filepath.Join(folder, "default.nix"), []byte(fmt.Sprintf(`{ lib, stdenv, fetchurl }:

stdenv.mkDerivation rec {
  pname = %q;
  version = %q;
  src = fetchurl {
    url = "https://example.org/${pname}/${pname}-${version}.tar.gz";
    sha256 = %q;
  };
%s  meta = with lib; { license = licenses.mit; platforms = platforms.unix; };
}
`, name, version, hash, extra)), 0o644))
		}
	}
}
