package compare

import (
	"reflect"
	"strings"
	"testing"

	"ferry/internal/nix"
)

// TestNamesAreSplitAsPeopleReadThem locks where a version begins, and that an output is no part of it.
func TestNamesAreSplitAsPeopleReadThem(t *testing.T) {
	for name, want := range map[string][2]string{
		"curl-8.1.2":                 {"curl", "8.1.2"},
		"curl-8.1.2-bin":             {"curl", "8.1.2"},
		"linux-6.1.2-modules":        {"linux", "6.1.2"},
		"python3.11-requests-2.28.0": {"python3.11-requests", "2.28.0"},
		"unit-sshd.service":          {"unit-sshd.service", ""},
		"system-path":                {"system-path", ""},
		"foo-unstable-2023-01-02":    {"foo-unstable", "2023-01-02"},
		"x-":                         {"x-", ""},
		"-1":                         {"-1", ""},
		"a-1":                        {"a", "1"},
	} {
		if pkg, version := SplitName(name); pkg != want[0] || version != want[1] {
			t.Errorf("%s: %q %q", name, pkg, version)
		}
	}
}

// TestVersionsAreOrderedAsNixOrdersThem has the examples of Nix's manual, both ways round.
func TestVersionsAreOrderedAsNixOrdersThem(t *testing.T) {
	for _, c := range []struct{ lower, higher string }{
		{"1.0", "2.3"}, {"2.1", "2.3"}, {"2.3", "2.5"}, {"2.3", "3.1"}, {"2.3", "2.3.1"}, {"2.3a", "2.3.1"}, {"2.3pre1", "2.3"},
		{"2.3pre3", "2.3pre12"}, {"2.3a", "2.3c"}, {"2.3pre1", "2.3c"}, {"2.3pre1", "2.3q"}, {"9", "10"}, {"1.9", "1.10"},
		{"99999999999999999999", "100000000000000000000"},
	} {
		if got := CompareVersions(c.lower, c.higher); got != -1 {
			t.Errorf("%s, %s: %d", c.lower, c.higher, got)
		}
		if got := CompareVersions(c.higher, c.lower); got != 1 {
			t.Errorf("%s, %s: %d", c.higher, c.lower, got)
		}
	}
	for _, c := range [][2]string{{"2.3.1", "2.3.1"}, {"2.03", "2.3"}, {"1-2", "1.2"}, {"", ""}} {
		if got := CompareVersions(c[0], c[1]); got != 0 {
			t.Errorf("%s, %s: %d", c[0], c[1], got)
		}
	}
}

// paths makes a closure of names, each with another hash, "name*" with one that no other list has.
func paths(t *testing.T, names ...string) []Path {
	t.Helper()
	var list []Path
	for _, name := range names {
		hash := strings.Repeat("a", 32)
		if rest, other := strings.CutSuffix(name, "*"); other {
			name, hash = rest, strings.Repeat("b", 32)
		}
		p, err := nix.ParseStorePath("/nix/store/" + hash + "-" + name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Path{p, 10})
	}
	return list
}

// TestClosuresSayWhatBecameOfEachPackage has every kind of change.
func TestClosuresSayWhatBecameOfEachPackage(t *testing.T) {
	c := Closures(
		paths(t, "same-1", "up-1.9", "down-2", "gone-1", "twice-1", "twice-2", "again-3", "plain", "both-1", "both-2"),
		paths(t, "same-1", "up-1.10", "down-1", "new-0.1", "twice-2", "again-3*", "plain*", "both-1", "both-3", "other"),
	)
	want := []Package{
		{"again", Rebuilt, []string{"3"}, []string{"3"}},
		{"both", Upgraded, []string{"1", "2"}, []string{"1", "3"}},
		{"down", Downgraded, []string{"2"}, []string{"1"}},
		{"gone", Removed, []string{"1"}, []string{}},
		{"new", Added, []string{}, []string{"0.1"}},
		{"other", Added, []string{}, []string{}},
		{"plain", Rebuilt, []string{}, []string{}},
		{"twice", Changed, []string{"1", "2"}, []string{"2"}},
		{"up", Upgraded, []string{"1.9"}, []string{"1.10"}},
	}
	if !reflect.DeepEqual(c.Packages, want) {
		t.Errorf("got %v", c.Packages)
	}
	if c.PathsBefore != 10 || c.PathsAfter != 10 || c.SizeBefore != 100 || c.SizeAfter != 100 {
		t.Errorf("%+v", c)
	}
	if none := Closures(paths(t, "a-1"), paths(t, "a-1")); len(none.Packages) != 0 {
		t.Errorf("equal ones: %v", none.Packages)
	}
}
