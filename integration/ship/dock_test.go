package ship_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ferry/integration/site"
)

// dock is a site whose system has store paths that a test makes, and from which it ships them.
type dock struct {
	*site.Site
}

func newDock(t *testing.T, o site.Options) *dock {
	t.Helper()
	return &dock{site.New(t, o)}
}

func (d *dock) in(t *testing.T) *dock { return &dock{d.Site.In(t)} }

// tree is a store path to be: by path, contents of files; "-> x" is a link to x, "+x" before contents an executable, a path that
// ends in a slash a folder. The path "" is the root itself.
type tree map[string]string

// write makes the tree at a place.
func (x tree) write(root string) error {
	for _, name := range slices.Sorted(maps.Keys(x)) {
		text, path := x[name], filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			switch target, link := strings.CutPrefix(text, "-> "); {
			case strings.HasSuffix(name, "/"):
				err = os.MkdirAll(path, 0o755)
			case link:
				err = os.Symlink(target, path)
			case strings.HasPrefix(text, "+x"):
				err = os.WriteFile(path, []byte(text[2:]), 0o755)
			default:
				err = os.WriteFile(path, []byte(text), 0o644)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x tree) sum() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(x)) {
		fmt.Fprintf(h, "%q%q", name, x[name])
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// offer makes the project's system one that has the trees, each as a store path of its name.
func (d *dock) offer(trees map[string]tree) {
	d.T.Helper()
	d.configure(d.have(trees))
}

// have adds the trees to the builder's store, and gives the part of a configuration that has them in /etc/ship.
func (d *dock) have(trees map[string]tree) string {
	d.T.Helper()
	names := slices.Sorted(maps.Keys(trees))
	var places []string
	for _, name := range names {
		place := filepath.Join(d.Builder.Home(), "trees", trees[name].sum(), name)
		if _, err := os.Lstat(d.Builder.Path(place)); err != nil {
			if err := trees[name].write(d.Builder.Path(place)); err != nil {
				d.T.Fatal(err)
			}
		}
		places = append(places, place)
	}
	paths := strings.Fields(d.Must("nix-store", append([]string{"--add"}, places...)...))
	hashes := strings.Fields(d.Must("nix-store", append([]string{"--query", "--hash"}, paths...)...))
	var config strings.Builder
	for i, name := range names {
		// Of fixed content, and so the path that was added: a builder for each would take its time.
		fmt.Fprintf(&config, "  environment.etc.%q.source = %s;\n", "ship/"+name, made(name, "exit 1",
			`outputHashMode = "recursive"; outputHashAlgo = "sha256";`, fmt.Sprintf("outputHash = %q;", strings.TrimPrefix(hashes[i], "sha256:"))))
	}
	return config.String()
}

// made is a derivation that a script makes.
func made(name, script string, attributes ...string) string {
	return fmt.Sprintf(`derivation {
    name = %q; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; LC_ALL = "C"; args = [ "-euc" %q ]; %s
  }`, name, script, strings.Join(attributes, " "))
}

func (d *dock) configure(more string) {
	d.T.Helper()
	d.Write("web/configuration.nix", site.With(site.Configuration("first"), more))
}

// shipped is what ferry has said of a ship.
type shipped struct {
	site.Outcome
	bytes, wire        float64
	paths, differences int
}

// part is what ferry has said of one path of a ship.
type part struct {
	of    string  // its name
	bytes float64 // of its NAR
	added float64 // bytes that are not from its base
	base  string  // the base's name; "" if there is none
}

// ship boots the target's next system from what is offered, which has to work, and checks that everything has arrived as it is
// here. What it has is what differences are made from the next time.
func (d *dock) ship(args ...string) shipped {
	d.T.Helper()
	s := d.shipUnseen(args...)
	d.allArrived()
	return s
}

// shipUnseen is ship without a look at what has arrived; that is for allArrived.
func (d *dock) shipUnseen(args ...string) shipped {
	d.T.Helper()
	return read(d.T, d.Deploy(append([]string{"--action", "boot", "-v"}, args...)...))
}

func (d *dock) allArrived() {
	d.T.Helper()
	d.arrived("/nix/var/nix/profiles/system", "/etc/nixos/current-configuration")
}

// try ships and changes nothing: the next time differences are made from the same as this time.
func (d *dock) try(args ...string) shipped {
	d.T.Helper()
	s := read(d.T, d.Deploy(append([]string{"--action", "dry-activate", "-v"}, args...)...))
	if s.paths > 0 {
		d.arrived("/nix/var/nix/gcroots/ferry/pending")
	}
	return s
}

var (
	nothing = regexp.MustCompile(`(?m)^web: ship +everything is there already`)
	summary = regexp.MustCompile(`(?m)^web: ship +(\S+ \S+) as (\S+ \S+), (\d+) paths?(?:, (\d+) as differences)?`)
)

// read finds the summary in what ferry has said.
func read(t *testing.T, o site.Outcome) shipped {
	t.Helper()
	s := shipped{Outcome: o}
	if nothing.MatchString(o.Errors) {
		return s
	}
	found := summary.FindStringSubmatch(o.Errors)
	if found == nil {
		t.Fatalf("ferry does not say what was shipped:\n%s", o.Errors)
	}
	s.bytes, s.wire = size(t, found[1]), size(t, found[2])
	s.paths, _ = strconv.Atoi(found[3])
	s.differences, _ = strconv.Atoi(found[4])
	return s
}

// size reads a size that ferry writes for people.
func size(t *testing.T, text string) float64 {
	t.Helper()
	number, unit, _ := strings.Cut(text, " ")
	n, err := strconv.ParseFloat(number, 64)
	scale := map[string]float64{"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
	if err != nil || scale == 0 {
		t.Fatalf("%q is no size", text)
	}
	return n * scale
}

var (
	wholePath = regexp.MustCompile(`(?m)^web: ship [a-z0-9]{32}-(\S+): (\S+ \S+) as a whole$`)
	deltaPath = regexp.MustCompile(`(?m)^web: ship [a-z0-9]{32}-(\S+): (\S+ \S+) of (\S+ \S+), the rest from [a-z0-9]{32}-(\S+)`)
)

// part is how the path of that name went; it fails the test if it went not once.
func (s shipped) part(t *testing.T, name string) part {
	t.Helper()
	var parts []part
	for _, found := range wholePath.FindAllStringSubmatch(s.Errors, -1) {
		bytes := size(t, found[2])
		parts = append(parts, part{of: found[1], bytes: bytes, added: bytes})
	}
	for _, found := range deltaPath.FindAllStringSubmatch(s.Errors, -1) {
		parts = append(parts, part{of: found[1], bytes: size(t, found[3]), added: size(t, found[2]), base: found[4]})
	}
	parts = slices.DeleteFunc(parts, func(p part) bool { return p.of != name })
	if len(parts) != 1 {
		t.Fatalf("%s was shipped %d times: %+v", name, len(parts), parts)
	}
	return parts[0]
}

// arrived checks that the closures of what the target's links lead to are here as they are there, and that the target's store is
// what it says.
func (d *dock) arrived(links ...string) {
	d.T.Helper()
	roots := strings.Fields(d.OnTarget(append([]string{"sh", "-c", `for link; do readlink -f "$link"; done`, "links"}, links...)...))
	if len(roots) != len(links) {
		d.T.Fatalf("of %q the target has %q", links, roots)
	}
	const hashes = `nix-store -qR "$@" >/tmp/paths-$$; xargs nix-store -q --hash </tmp/paths-$$ | paste -d " " /tmp/paths-$$ - | sort; rm /tmp/paths-$$`
	here := strings.TrimRight(d.Must("sh", append([]string{"-euc", hashes, "hashes"}, roots...)...), "\n")
	there := d.OnTarget(append([]string{"sh", "-euc", hashes, "hashes"}, roots...)...)
	if here != there {
		d.T.Errorf("the target has another closure of %q:\n%s\ninstead of\n%s", roots, there, here)
	}
	d.isWhole()
}

// isWhole checks that the target's store is what it says.
func (d *dock) isWhole() {
	d.T.Helper()
	if said, err := d.Target.Command(d.T.Context(), "nix-store", "--verify", "--check-contents").CombinedOutput(); err != nil || strings.Contains(string(said), "error") {
		d.T.Errorf("the target's store is broken: %v\n%s", err, said)
	}
}
