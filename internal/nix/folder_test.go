package nix

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func openFolder(t *testing.T, path string) *Folder {
	t.Helper()
	dir, base, err := OpenStorePath(path)
	if err != nil || base != "" {
		t.Fatalf("%q, %v", base, err)
	}
	t.Cleanup(dir.Close)
	return dir
}

func TestAFolderListsEverythingInTheOrderOfANAR(t *testing.T) {
	path := t.TempDir()
	var want []string
	// More than one call of the system gives.
	for i := range 3000 {
		name := strings.Repeat(string(rune('a'+i%26)), 1+i%200) + string(rune('A'+i/200))
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	entries, err := openFolder(t, path).List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d names, want %d", len(got), len(want))
	}
}

func TestAFolderTellsWhatItsEntriesAre(t *testing.T) {
	path := t.TempDir()
	for name, make := range map[string]func(string) error{
		"file":   func(p string) error { return os.WriteFile(p, []byte("12345"), 0o644) },
		"run":    func(p string) error { return os.WriteFile(p, nil, 0o755) },
		"folder": func(p string) error { return os.Mkdir(p, 0o755) },
		"link":   func(p string) error { return os.Symlink("file", p) },
		"pipe":   func(p string) error { return syscall.Mkfifo(p, 0o600) },
	} {
		if err := make(filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]FileInfo{
		"file": {RegularType, false, 5}, "run": {RegularType, true, 0}, "folder": {Type: FolderType}, "link": {Type: LinkType}, "pipe": {Type: OtherType},
	}
	dir := openFolder(t, path)
	entries, err := dir.List()
	if err != nil || len(entries) != len(want) {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		info, err := dir.Stat(e.Name)
		if err != nil || info.Type != want[e.Name].Type || e.Type != info.Type && e.Type != UnknownType {
			t.Errorf("%s is %+v, %+v, %v", e.Name, e, info, err)
		}
		if info.Type == RegularType && info != want[e.Name] {
			t.Errorf("%s is %+v", e.Name, info)
		}
	}
	if target, err := dir.Readlink("link"); err != nil || target != "file" {
		t.Errorf("the link's target is %q, %v", target, err)
	}
}

func TestAFolderGivesNothingFromOutsideOfIt(t *testing.T) {
	outside := t.TempDir()
	path := filepath.Join(outside, "path")
	for _, name := range []string{outside + "/secret", outside + "/folder/secret", path + "/inside/file"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"file": outside + "/secret", "folder": outside + "/folder", "within": "inside"} {
		if err := os.Symlink(target, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(path, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := openFolder(t, path)
	for _, name := range []string{"", ".", "..", "../secret", outside + "/secret", "file", "folder", "folder/secret", "within", "within/file", "inside/file", "inside", "pipe", "x\x00"} {
		if f, _, err := dir.OpenFile(name); err == nil {
			f.Close()
			t.Errorf("%q was opened as a file", name)
		}
		if name == "inside" {
			continue
		}
		if sub, err := dir.Open(name); err == nil {
			sub.Close()
			t.Errorf("%q was opened as a folder", name)
		}
	}
	for _, name := range []string{"..", "../secret", "inside/file", ""} {
		if _, err := dir.Stat(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("stat of %q gives %v", name, err)
		}
		if _, err := dir.Readlink(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("readlink of %q gives %v", name, err)
		}
	}
}

func TestAStorePathThatIsNoFolderIsOpenedInItsFolder(t *testing.T) {
	store := t.TempDir()
	if err := os.WriteFile(filepath.Join(store, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	// One to a folder is a link all the same.
	if err := os.Symlink("/", filepath.Join(store, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]FileType{"file": RegularType, "link": LinkType} {
		dir, base, err := OpenStorePath(filepath.Join(store, name))
		if err != nil || base != name {
			t.Fatalf("%s: base %q, %v", name, base, err)
		}
		if info, err := dir.Stat(base); err != nil || info.Type != want {
			t.Errorf("%s is %+v, %v", name, info, err)
		}
		dir.Close()
	}
	if _, _, err := OpenStorePath(filepath.Join(store, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing path gives %v", err)
	}
}
