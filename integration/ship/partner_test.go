package ship_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/integration/site"

	"golang.org/x/sys/unix"
)

// place is where a path of /etc/ship that the target boots is, seen from the test.
func (d *dock) place(name string) string {
	d.T.Helper()
	return filepath.Join(d.Target.Root(), d.OnTarget("readlink", "-f", "/nix/var/nix/profiles/system/etc/ship/"+name))
}

// damage is what has happened to a path of the target's store, which its Nix does not know of.
type damage struct {
	do    func(path string) error
	harms bool // what is new is made from it
}

func damages() map[string]damage {
	change := func(path, name string, edit func([]byte) []byte) error {
		file := filepath.Join(path, name)
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(file, edit(text), 0o444)
	}
	flip := func(at int) func(string) error {
		return func(path string) error {
			return change(path, "lib/a", func(text []byte) []byte {
				text[at] ^= 1
				return text
			})
		}
	}
	return map[string]damage{
		"flipped":  {flip(90_000), true},
		"unused":   {flip(50_010), false},
		"longer":   {func(path string) error { return change(path, "lib/a", func(b []byte) []byte { return append(b, 'x') }) }, true},
		"shorter":  {func(path string) error { return change(path, "lib/a", func(b []byte) []byte { return b[:60_000] }) }, true},
		"deleted":  {func(path string) error { return os.Remove(filepath.Join(path, "lib/a")) }, true},
		"gone":     {os.RemoveAll, true},
		"linked":   {func(path string) error { return relink(filepath.Join(path, "lib/a"), "/etc/shadow") }, true},
		"led-away": {func(path string) error { return relink(filepath.Join(path, "lib"), "/etc") }, true},
		"all-away": {func(path string) error { return relink(path, "/etc") }, true},
		"more-in":  {func(path string) error { return os.WriteFile(filepath.Join(path, "lib/0"), []byte("new"), 0o444) }, true},
		"a-pipe":   {func(path string) error { return repipe(filepath.Join(path, "lib/a")) }, true},
		"runnable": {func(path string) error { return os.Chmod(filepath.Join(path, "lib/a"), 0o555) }, true},
	}
}

func relink(path, to string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.Symlink(to, path)
}

func repipe(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return unix.Mkfifo(path, 0o444)
}

// partners are what each damage is done to, and what is made from it.
func partners(names []string) (before, after map[string]tree) {
	before, after = map[string]tree{}, map[string]tree{}
	for i, name := range names {
		text := noise(20+i, 100_000)
		before[name] = tree{"lib/a": text, "lib/b": "1"}
		after[name] = tree{"lib/a": put(text, hashes(1, 50_000, 50_100)), "lib/b": "2"}
	}
	return before, after
}

// TestAPathIsSentAsAWholeWhereItsPartnerIsNotWhatItWas damages the old path on the target.
func TestAPathIsSentAsAWholeWhereItsPartnerIsNotWhatItWas(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{})
	all := damages()
	trees, after := partners(slices.Sorted(maps.Keys(all)))
	d.offer(trees)
	d.ship()
	for name, damage := range all {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			heal := d.harm(name, damage)
			trees[name] = after[name]
			d.offer(trees)
			o := d.Ferry("deploy", "--action", "boot", "-v", "--sudo-password-file", d.Password)
			heal()
			if o.Status != 0 {
				t.Fatalf("status %d", o.Status)
			}
			s := read(t, o)
			d.allArrived()
			want := 0
			if damage.harms {
				want = 1
			}
			if n := strings.Count(s.Errors, "; it is sent as a whole. "); n != want {
				t.Errorf("%d warnings, want %d", n, want)
			}
			whole := strings.Contains(s.Errors, "-"+name+": 100 kB as a whole\n") || strings.Contains(s.Errors, "-"+name+": 101 kB as a whole\n")
			if whole != damage.harms {
				t.Errorf("sent as a whole: %v", whole)
			}
		})
	}
}

// harm damages the path of that name, and gives what makes it good again.
func (d *dock) harm(name string, x damage) (heal func()) {
	d.T.Helper()
	path := d.place(name)
	saved := filepath.Join(d.Target.Root(), "saved", name)
	d.OnTarget("sh", "-euc", `mkdir -p /saved && cp -a "$1" "/saved/$2"`, "save", strings.TrimPrefix(path, d.Target.Root()), name)
	if err := x.do(path); err != nil {
		d.T.Fatal(err)
	}
	return func() {
		d.T.Helper()
		if err := os.RemoveAll(path); err != nil {
			d.T.Fatal(err)
		}
		if err := os.Rename(saved, path); err != nil {
			d.T.Fatal(err)
		}
	}
}

// TestADiskThatIsBrokenInManyPlacesCostsFewRounds damages more old paths than are worth a round each.
func TestADiskThatIsBrokenInManyPlacesCostsFewRounds(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{})
	var names []string
	for _, letter := range "abcdefgh" {
		names = append(names, "broken-"+string(letter))
	}
	before, after := partners(names)
	d.offer(before)
	d.ship()
	var heal []func()
	for _, name := range names {
		heal = append(heal, d.harm(name, damages()["flipped"]))
	}
	d.offer(after)
	s := d.shipUnseen()
	for _, f := range heal {
		f()
	}
	d.allArrived()
	if n := strings.Count(s.Errors, "; it is sent as a whole. "); n != 5 {
		t.Errorf("%d warnings, want 5", n)
	}
}
