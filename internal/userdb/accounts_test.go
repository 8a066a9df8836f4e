package userdb

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// machine is a folder with the files of a machine's accounts.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T, files map[string]string) machine {
	t.Helper()
	m := machine{t, t.TempDir()}
	for name, text := range files {
		m.write(name, text)
	}
	return m
}

func (m machine) write(name, text string) {
	m.t.Helper()
	file := m.root + name
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		m.t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.HasSuffix(name, "shadow") {
		mode = 0o640
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) read() State {
	m.t.Helper()
	s, err := Read(m.root)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// has checks what the files say; "-" is none.
func (m machine) has(files map[string]string) {
	m.t.Helper()
	for name, want := range files {
		got, err := os.ReadFile(m.root + name)
		if os.IsNotExist(err) {
			got = []byte("-")
		} else if err != nil {
			m.t.Fatal(err)
		}
		if string(got) != want {
			m.t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
}

// before is a machine where bob was made by hand, and alice is declared and has another main group and a password of her own.
var before = map[string]string{
	"/etc/passwd":                       "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/zsh\nbob:x:1001:1001::/home/bob:/bin/sh\n",
	"/etc/shadow":                       "root:!:1::::::\nalice:$6$alice:19000::::::\nbob:$6$bob:19000::::::\n",
	"/etc/group":                        "root:x:0:\nwheel:x:1:alice,bob\nalice:x:1000:\nbob:x:1001:\n",
	"/etc/subuid":                       "alice:100000:65536\nbob:7:8\nbob:70:8\n",
	"/var/lib/nixos/declarative-users":  "alice root",
	"/var/lib/nixos/declarative-groups": "root wheel",
	"/var/lib/nixos/uid-map":            `{"alice":1000,"root":0}`,
}

// after is what an activation makes of it that leaves alice out, declares bob and eve, and has other groups.
var after = map[string]string{
	"/etc/passwd":                       "root:x:0:0::/root:/bin/sh\nbob:x:1001:100:Bob:/home/bob:/bin/fish\neve:x:1002:100::/home/eve:/bin/sh\n",
	"/etc/shadow":                       "root:!:1::::::\nbob:!:19000::::::\neve:$6$eve:1::::::\n",
	"/etc/group":                        "root:x:0:\nwheel:x:1:eve\nusers:x:100:\nalice:x:1000:\nbob:x:1001:\n",
	"/etc/subuid":                       "eve:200000:65536\n",
	"/var/lib/nixos/declarative-users":  "bob eve root",
	"/var/lib/nixos/declarative-groups": "root users wheel",
	"/var/lib/nixos/uid-map":            `{"alice":1000,"bob":1001,"eve":1002,"root":0}`,
}

// The number of who is gone again is not given to anybody else.
const numbersAfter = `{"alice":1000,"bob":1001,"eve":1002,"root":0}`

func (m machine) becomes(files map[string]string) {
	for name, text := range files {
		m.write(name, text)
	}
}

func with(files, more map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range []map[string]string{files, more} {
		for name, text := range m {
			all[name] = text
		}
	}
	return all
}

func TestWhatAnActivationHasChangedIsPutBack(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprint("known after it: ", known), func(t *testing.T) {
			m := newMachine(t, before)
			was := m.read()
			m.becomes(after)
			var then *State
			if known {
				s := m.read()
				then = &s
			}
			if err := Restore(m.root, was, then); err != nil {
				t.Fatal(err)
			}
			m.has(with(before, map[string]string{"/var/lib/nixos/uid-map": numbersAfter}))
			if info, err := os.Stat(m.root + "/etc/shadow"); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("the mode of shadow is %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestWhatOthersHaveChangedSinceStays(t *testing.T) {
	m := newMachine(t, before)
	was := m.read()
	m.becomes(after)
	then := m.read()
	m.becomes(map[string]string{
		"/etc/passwd": "root:x:0:0::/root:/bin/bash\nbob:x:1001:100:Bob:/home/bob:/bin/fish\neve:x:1002:100::/home/eve:/bin/sh\ncarol:x:1003:100::/home/carol:/bin/sh\n",
		"/etc/shadow": "root:$6$root:20000::::::\nbob:!:19000::::::\neve:$6$changed:20000::::::\ncarol:$6$carol:20000::::::\n",
		"/etc/group":  "root:x:0:\nwheel:x:1:eve,carol\nusers:x:100:\nalice:x:1000:carol\nbob:x:1001:\n",
	})
	if err := Restore(m.root, was, &then); err != nil {
		t.Fatal(err)
	}
	m.has(map[string]string{
		"/etc/passwd": "root:x:0:0::/root:/bin/bash\nalice:x:1000:1000:Alice:/home/alice:/bin/zsh\nbob:x:1001:1001::/home/bob:/bin/sh\ncarol:x:1003:100::/home/carol:/bin/sh\n",
		"/etc/shadow": "root:$6$root:20000::::::\nalice:$6$alice:19000::::::\nbob:$6$bob:19000::::::\ncarol:$6$carol:20000::::::\n",
		"/etc/group":  "root:x:0:\nwheel:x:1:alice,bob,carol\nalice:x:1000:carol\nbob:x:1001:\n",
	})
}

func TestAPasswordThatWasChangedMeanwhileStays(t *testing.T) {
	m := newMachine(t, before)
	was := m.read()
	// The activation changes bob's shell, and he his password.
	m.becomes(map[string]string{"/etc/passwd": strings.Replace(before["/etc/passwd"], "/home/bob:/bin/sh", "/home/bob:/bin/fish", 1)})
	then := m.read()
	changed := strings.Replace(before["/etc/shadow"], "$6$bob:19000", "$6$new:20000", 1)
	m.becomes(map[string]string{"/etc/shadow": changed})
	if err := Restore(m.root, was, &then); err != nil {
		t.Fatal(err)
	}
	m.has(map[string]string{"/etc/passwd": before["/etc/passwd"], "/etc/shadow": changed})
}

func TestAfterABootOfTheOldSystemItsUsersAreThere(t *testing.T) {
	for _, known := range []bool{true, false} {
		m := newMachine(t, before)
		was := m.read()
		m.becomes(after)
		var then *State
		if known {
			s := m.read()
			then = &s
		}
		// bob is removed, because he was declared, and alice is made anew; root has changed their own password.
		m.becomes(map[string]string{
			"/etc/passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1000:100:Alice:/home/alice:/bin/zsh\n",
			"/etc/shadow": "root:$6$root:20000::::::\nalice:!:1::::::\n",
			"/etc/group":  "root:x:0:\nwheel:x:1:alice\nalice:x:1000:\nbob:x:1001:\n",
			"/etc/subuid": "alice:100000:65536\n", "/var/lib/nixos/declarative-users": "alice root", "/var/lib/nixos/declarative-groups": "root wheel",
		})
		if err := RestoreAtBoot(m.root, was, then); err != nil {
			t.Fatal(err)
		}
		want := with(before, map[string]string{"/var/lib/nixos/uid-map": numbersAfter})
		if known {
			want["/etc/shadow"] = strings.Replace(before["/etc/shadow"], "root:!:1", "root:$6$root:20000", 1)
		}
		m.has(want)
	}
}

func TestWhoeverWasThereIsThereAfterTheOldSystemToo(t *testing.T) {
	m := newMachine(t, before)
	want := m.read()
	// It locks who is not declared, and makes a user of its own.
	m.becomes(map[string]string{
		"/etc/passwd":                      "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/zsh\nsshd:x:999:999::/:/bin/nologin\n",
		"/etc/shadow":                      "root:!:1::::::\nalice:!:19000::::::\nsshd:!:1::::::\n",
		"/var/lib/nixos/declarative-users": "alice root sshd",
		"/var/lib/nixos/gid-map":           "{}",
	})
	if err := Complete(m.root, want); err != nil {
		t.Fatal(err)
	}
	m.has(map[string]string{
		"/etc/passwd":                      before["/etc/passwd"] + "sshd:x:999:999::/:/bin/nologin\n",
		"/etc/shadow":                      before["/etc/shadow"] + "sshd:!:1::::::\n",
		"/var/lib/nixos/declarative-users": "alice root sshd",
		"/var/lib/nixos/gid-map":           "{}",
	})
}

func TestListsThatAnActivationHasMadeAreRemoved(t *testing.T) {
	m := newMachine(t, map[string]string{"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/group": "root:x:0:\n"})
	was := m.read()
	m.becomes(after)
	if err := Restore(m.root, was, nil); err != nil {
		t.Fatal(err)
	}
	m.has(map[string]string{
		// Those whom no list has may be somebody else's.
		"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/group": "root:x:0:\nalice:x:1000:\nbob:x:1001:\n",
		"/var/lib/nixos/declarative-users": "-", "/var/lib/nixos/declarative-groups": "-", "/etc/subuid": "-",
	})
}

// Where /etc cannot be written, NixOS keeps the files elsewhere and makes links to them; or they are the system's own.
func TestLinksAreFollowedAndTheStoreIsLeftAlone(t *testing.T) {
	m := newMachine(t, map[string]string{"/var/lib/nixos/passwd": before["/etc/passwd"], "/nix/store/x-etc/group": "root:x:0:\n", "/etc/.keep": ""})
	for name, to := range map[string]string{"passwd": "/var/lib/nixos/passwd", "group": "../nix/store/x-etc/group"} {
		if err := os.Symlink(to, m.root+"/etc/"+name); err != nil {
			t.Fatal(err)
		}
	}
	was := m.read()
	m.becomes(map[string]string{"/var/lib/nixos/passwd": after["/etc/passwd"], "/nix/store/x-etc/group": "other:x:0:\n"})
	if err := Restore(m.root, was, nil); err != nil {
		t.Fatal(err)
	}
	m.has(map[string]string{"/var/lib/nixos/passwd": before["/etc/passwd"] + "eve:x:1002:100::/home/eve:/bin/sh\n", "/nix/store/x-etc/group": "other:x:0:\n"})
	if to, err := os.Readlink(m.root + "/etc/passwd"); err != nil || to != "/var/lib/nixos/passwd" {
		t.Errorf("the link is %q, %v", to, err)
	}
}

func TestNothingIsWrittenWhereNothingHasChanged(t *testing.T) {
	m := newMachine(t, before)
	was := m.read()
	inodes := func() map[string]uint64 {
		all := map[string]uint64{}
		for name := range before {
			var st unix.Stat_t
			if err := unix.Stat(m.root+name, &st); err != nil {
				t.Fatal(err)
			}
			all[name] = st.Ino
		}
		return all
	}
	first := inodes()
	for _, err := range []error{Restore(m.root, was, &was), Restore(m.root, was, nil), Complete(m.root, was)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(inodes(), first) {
		t.Error("a file was replaced")
	}
	m.has(before)
}

func TestWhatIsKeptIsForRootAlone(t *testing.T) {
	m := newMachine(t, before)
	was := m.read()
	name := m.root + "/kept"
	if err := os.WriteFile(name, []byte("wide"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := was.Keep(name); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	again, err := Load(name)
	if err != nil || again.Differs(was) || len(again.Files) != len(before) {
		t.Errorf("%d files, %v", len(again.Files), err)
	}
	for _, text := range []string{fmt.Sprint(was), fmt.Sprintf("%v %+v %#v %s", was, was, was, was)} {
		if strings.Contains(text, "alice") {
			t.Errorf("it prints %s", text)
		}
	}
	if err := os.WriteFile(name, []byte(`{"files":{"/etc/shadow":"$6$secret"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("it says %v", err)
	}
}

func TestAChangeIsUndoneLongAfter(t *testing.T) {
	m := newMachine(t, before)
	was := m.read()
	m.becomes(after)
	c, changed := Difference(was, m.read())
	if !changed || !c.Brings("alice") || !c.Brings("bob") || c.Brings("eve") {
		t.Fatal("the difference is not what has changed")
	}
	if text := string(c.Before.Files["/etc/shadow"].Content); strings.Contains(text, "root") || strings.Contains(fmt.Sprintf("%v %#v", c, c), "$6$") {
		t.Errorf("it keeps %s", text)
	}
	if err := c.Keep(m.root + "/kept"); err != nil {
		t.Fatal(err)
	}
	c, err := LoadChange(m.root + "/kept")
	if err != nil {
		t.Fatal(err)
	}
	m.becomes(map[string]string{
		"/etc/passwd": "carol:x:1003:100::/home/carol:/bin/sh\n" + after["/etc/passwd"],
		"/etc/shadow": "carol:$6$carol:20000::::::\n" + strings.Replace(after["/etc/shadow"], "root:!:1", "root:$6$root:20000", 1),
	})
	if err := c.Undo(m.root); err != nil {
		t.Fatal(err)
	}
	m.has(map[string]string{
		"/etc/passwd":                      "carol:x:1003:100::/home/carol:/bin/sh\nroot:x:0:0::/root:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/zsh\n",
		"/etc/shadow":                      "carol:$6$carol:20000::::::\nroot:$6$root:20000::::::\nbob:$6$bob:19000::::::\nalice:$6$alice:19000::::::\n",
		"/var/lib/nixos/declarative-users": "alice root", "/var/lib/nixos/uid-map": numbersAfter,
	})
	want := m.read()
	m.becomes(map[string]string{
		"/etc/passwd": "root:x:0:0::/root:/bin/other\nalice:x:1000:100:Alice:/home/alice:/bin/zsh\nsshd:x:5:5::/:/bin/nologin\n",
	})
	if err := c.Complete(m.root, want); err != nil {
		t.Fatal(err)
	}
	m.has(map[string]string{
		"/etc/passwd": "root:x:0:0::/root:/bin/other\nalice:x:1000:1000:Alice:/home/alice:/bin/zsh\nsshd:x:5:5::/:/bin/nologin\nbob:x:1001:1001::/home/bob:/bin/sh\n",
	})
	if _, changed := Difference(was, was); changed {
		t.Error("nothing has changed")
	}
}

func TestAFileThatIsAMountCannotBePutBack(t *testing.T) {
	m := newMachine(t, before)
	m.write("/proc/self/mountinfo", "22 1 0:20 / / rw - overlay overlay rw\n")
	if err := Writable(m.root); err != nil {
		t.Errorf("got %v", err)
	}
	m.write("/proc/self/mountinfo", "22 1 0:20 / / rw - overlay overlay rw\n23 22 8:1 /passwd /etc/passwd ro - ext4 /dev/vda ro\n")
	if err := Writable(m.root); err == nil || !strings.Contains(err.Error(), "/etc/passwd cannot be replaced: something is mounted there") {
		t.Errorf("got %v", err)
	}
}

func FuzzPuttingBackOverNoChangeIsExact(f *testing.F) {
	f.Add(before["/etc/passwd"], after["/etc/passwd"])
	f.Add("a:b\n#c\n\n+::\na:c\n", "")
	f.Fuzz(func(t *testing.T, was, is string) {
		if !strings.HasSuffix(was, "\n") && was != "" {
			was += "\n"
		}
		root := t.TempDir()
		m := machine{t, root}
		m.write("/etc/passwd", was)
		first := m.read()
		m.write("/etc/passwd", is)
		then := m.read()
		if err := Restore(root, first, &then); err != nil {
			t.Fatal(err)
		}
		m.has(map[string]string{"/etc/passwd": was})
		if text, err := json.Marshal(m.read()); err != nil || len(text) == 0 {
			t.Fatal(err)
		}
	})
}
