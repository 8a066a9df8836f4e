// Package release_test tests how ferry is built and packaged: archives, the package for nixpkgs, the changelog.
package release_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/cli"
)

// whole builds every platform, with a cache of Go's own, as a machine does that never built ferry.
var whole = flag.Bool("whole", false, "build for every platform, from nothing")

// root is the checkout.
const root = "../.."

// runs gives what a command prints; it has to end well.
func runs(t *testing.T, dir string, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, said.String())
	}
	return string(out)
}

// home is a home folder. Go's own tools may write into it when the test has ended, which must not fail it.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ferry-home-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// checkout copies what git knows of the checkout, and the agents, to a folder without git.
func checkout(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ferry")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	runs(t, root, nil, "sh", "-c", `{ git ls-files --cached --others --exclude-standard; ls internal/agent/embedded/agent-*.gz internal/agent/embedded/index; } |
		while read -r file; do [ ! -e "$file" ] || echo "$file"; done | tar -cf - -T - | tar -xf - -C "$0"`, dir)
	return dir
}

// TestAReleaseIsTheSameWhereverItIsBuilt builds archives in this checkout and in a copy elsewhere, and looks into them.
func TestAReleaseIsTheSameWhereverItIsBuilt(t *testing.T) {
	t.Parallel()
	platforms := []string{"linux-amd64"}
	env := []string{"FERRY_VERSION=1.2.3", "SOURCE_DATE_EPOCH=1700000000"}
	if *whole {
		platforms = nil
	}
	sums := map[string]bool{}
	var out string
	for _, from := range []string{root, checkout(t)} {
		out = t.TempDir()
		sums[runs(t, from, env, append([]string{"release/build", out}, platforms...)...)] = true
		if *whole {
			env = append(env, "GOCACHE="+t.TempDir())
		}
	}
	if len(sums) != 1 {
		t.Errorf("two builds differ: %v", sums)
	}
	names := archive(t, filepath.Join(out, "ferry-1.2.3-linux-amd64.tar.gz"))
	for _, want := range []string{"ferry", "README.md", "LICENSE", "man/ferry.1", "man/ferry-deploy.1", "completions/ferry.bash", "completions/ferry.zsh", "completions/ferry.fish"} {
		if !slices.Contains(names, "ferry-1.2.3-linux-amd64/"+want) {
			t.Errorf("the archive lacks %s: %v", want, names)
		}
	}
	runs(t, out, nil, "tar", "-xf", "ferry-1.2.3-linux-amd64.tar.gz")
	said := runs(t, out, nil, "ferry-1.2.3-linux-amd64/ferry", "version")
	if !strings.HasPrefix(said, "ferry 1.2.3 (go") || !strings.Contains(said, "\nagents: x86_64 ") {
		t.Errorf("ferry version: %q", said)
	}
}

func archive(t *testing.T, file string) (names []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(packed); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1700000000 {
			t.Errorf("%s: user %d, group %d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		names = append(names, h.Name)
	}
}

// TestTheVersionSaysWhichCommit locks what release/version makes of tags, commits and changes.
func TestTheVersionSaysWhichCommit(t *testing.T) {
	t.Parallel()
	dir := checkout(t)
	alone := []string{"HOME=" + home(t), "GIT_CONFIG_NOSYSTEM=1"}
	git := func(args ...string) string {
		return runs(t, dir, alone, append([]string{"git", "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
	}
	is := func(want string) {
		t.Helper()
		if got := runs(t, dir, alone, "release/version"); got != want+"\n" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	is(cli.Version + "-dev")
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "first")
	commit := strings.TrimSpace(git("rev-parse", "--short=7", "HEAD"))
	is(cli.Version + "-dev." + commit)
	git("tag", "v"+cli.Version)
	is(cli.Version)
	if err := os.WriteFile(filepath.Join(dir, "README.md"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	is(cli.Version + "-dev." + commit + ".dirty")
	git("checkout", "-q", "README.md")
	git("tag", "-d", "v"+cli.Version)
	git("tag", "v99.0.0")
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "release/version"))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "the tag is v99.0.0, and internal/cli says "+cli.Version) {
		t.Errorf("a tag of another version: %q, %v", out, err)
	}
}

// TestTheChangelogIsRolledIntoOneFile looks for each entry in the file, and that none is left.
func TestTheChangelogIsRolledIntoOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"release/changelog":      read(t, filepath.Join(root, "release/changelog")),
		"changelog/unreleased/a": "Fixed: mend a thing\n\nIt was broken.\n",
		"changelog/unreleased/b": "Added: have a `b`\n\nOne.\n\nTwo.\n\nFixed: mend another\n\nIt was, too.\n",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	runs(t, dir, nil, "sh", "release/changelog", "0.1.0")
	const want = "# ferry 0.1.0\n\n## Added\n\n### Have a `b`\n\nOne.\n\nTwo.\n\n## Fixed\n\n### Mend a thing\n\nIt was broken.\n\n### Mend another\n\nIt was, too.\n"
	if got := read(t, filepath.Join(dir, "changelog/0.1.0.md")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "changelog/unreleased")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pack is package.nix as evaluation gives it, of a nixpkgs that hands everything back.
type pack struct {
	Version, VendorHash string
	SubPackages         []string
	Ldflags             []string
	PreBuild            string
	PostInstall         string
}

func evaluated(t *testing.T, dir string) (p pack) {
	t.Helper()
	const nixpkgs = `rec {
	  callPackage = file: _: import file {
	    lib = { cleanSource = src: "src"; optionalString = yes: text: if yes then text else ""; licenses.mit = "mit"; platforms = { linux = [ ]; darwin = [ ]; }; };
	    stdenv = { buildPlatform.canExecute = _: true; hostPlatform = { }; };
	    installShellFiles = "installShellFiles";
	    buildGoModule = attrs: attrs;
	  };
	}`
	out := runs(t, dir, nil, "nix-instantiate", "--store", "dummy://", "--eval", "--strict", "--json", "-E", "import ./default.nix { pkgs = "+nixpkgs+"; }")
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestThePackageIsOfThisVersionAndTheseModules compares package.nix with what Go says.
func TestThePackageIsOfThisVersionAndTheseModules(t *testing.T) {
	t.Parallel()
	dir := checkout(t)
	p := evaluated(t, dir)
	if p.Version != cli.Version || !slices.Contains(p.Ldflags, "-X main.version="+cli.Version) {
		t.Errorf("version %q, ldflags %q, want %s", p.Version, p.Ldflags, cli.Version)
	}
	vendor := filepath.Join(t.TempDir(), "vendor")
	runs(t, dir, nil, "go", "mod", "vendor", "-o", vendor)
	hash, err := hex.DecodeString(strings.TrimSpace(runs(t, dir, nil, "nix-hash", "--type", "sha256", vendor)))
	if err != nil {
		t.Fatal(err)
	}
	if sri := "sha256-" + base64.StdEncoding.EncodeToString(hash); p.VendorHash != sri {
		t.Errorf("vendorHash is %s, and has to be %s", p.VendorHash, sri)
	}
}

// TestThePackageBuildsWithoutANetwork does what nixpkgs' buildGoModule does with package.nix, in a namespace without a network,
// from vendored modules alone.
func TestThePackageBuildsWithoutANetwork(t *testing.T) {
	t.Parallel()
	dir := checkout(t)
	p := evaluated(t, dir)
	runs(t, dir, nil, "sh", "-c", "go mod vendor && rm internal/agent/embedded/agent-*.gz internal/agent/embedded/index")
	out := t.TempDir()
	const phases = `set -eu
installManPage() { mkdir -p "$out/share/man/man1" && cp "$@" "$out/share/man/man1/"; }
installShellCompletion() {
	[ "$1 $2" = "--cmd ferry" ] && [ "$3 $5 $7" = "--bash --zsh --fish" ]
	mkdir -p "$out/completions" && cp "$4" "$6" "$8" "$out/completions/"
}
export GOFLAGS="-mod=vendor -trimpath" GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local CGO_ENABLED=0
eval "$preBuild"
for package in $subPackages; do go install -ldflags "$ldflags" "./$package"; done
mkdir -p "$out/bin" && mv "$GOBIN"/* "$out/bin/"
eval "$postInstall"
`
	cache := strings.TrimSpace(runs(t, dir, nil, "go", "env", "GOCACHE"))
	if *whole {
		cache = t.TempDir()
	}
	goroot := strings.TrimSpace(runs(t, dir, nil, "go", "env", "GOROOT"))
	runs(t, dir, []string{
		"out=" + out, "preBuild=" + p.PreBuild, "postInstall=" + p.PostInstall, "subPackages=" + strings.Join(p.SubPackages, " "),
		"ldflags=" + strings.Join(p.Ldflags, " "), "GOCACHE=" + cache, "GOBIN=" + t.TempDir(), "GOPATH=" + t.TempDir(), "HOME=" + home(t),
		"PATH=" + goroot + "/bin:" + os.Getenv("PATH"),
	}, "unshare", "--net", "sh", "-c", phases)
	if said := runs(t, out, nil, "bin/ferry", "version"); !strings.HasPrefix(said, "ferry "+cli.Version+" (go") || !strings.Contains(said, "\nagents: x86_64 ") {
		t.Errorf("ferry version: %q", said)
	}
	for _, file := range []string{"share/man/man1/ferry-deploy.1", "completions/ferry.zsh"} {
		if read(t, filepath.Join(out, file)) == "" {
			t.Errorf("%s is empty", file)
		}
	}
}

// TestTheFlakeAndTheModuleEvaluate evaluates both with stand-ins for what nixpkgs gives them.
func TestTheFlakeAndTheModuleEvaluate(t *testing.T) {
	t.Parallel()
	dir := checkout(t)
	eval := func(expression, want string) {
		t.Helper()
		if got := strings.TrimSpace(runs(t, dir, nil, "nix-instantiate", "--store", "dummy://", "--eval", "--strict", "--json", "-E", expression)); got != want {
			t.Errorf("%s: got %s, want %s", expression, got, want)
		}
	}
	eval(`let
	  nixpkgs = {
	    lib.genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
	    legacyPackages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ] (system: { callPackage = file: _: baseNameOf file + " for " + system; });
	  };
	  outputs = (import ./flake.nix).outputs { self = { }; inherit nixpkgs; };
	in [ outputs.packages.aarch64-linux.default (outputs.overlays.default { callPackage = file: _: baseNameOf file; } { }).ferry ]`,
		`["package.nix for aarch64-linux","package.nix"]`)
	eval(`let
	  lib = { mkEnableOption = _: "bool"; mkOption = o: o; mkIf = yes: set: if yes then set else { }; literalExpression = e: e; types = { package = 1; str = 1; listOf = t: t; }; };
	  options = { enable = true; package = "ferry"; emulatedSystems = [ "aarch64-linux" ]; };
	in (import ./module.nix { config.programs.ferry = options; inherit lib; pkgs = { }; }).config`,
		`{"boot":{"binfmt":{"emulatedSystems":["aarch64-linux"]}},"environment":{"systemPackages":["ferry"]}}`)
}
