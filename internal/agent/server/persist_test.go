package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
)

// mounted gives the machine these mounts, as lines of a place, a type, and options of the file system.
func (m *fakeMachine) mounted(lines ...string) {
	m.t.Helper()
	var text strings.Builder
	for _, line := range lines {
		f := strings.Fields(line)
		m.write(f[0]+"/.keep", "")
		text.WriteString("20 1 0:30 / " + f[0] + " rw,relatime shared:1 - " + f[1] + " source " + strings.Join(append([]string{"rw"}, f[2:]...), ",") + "\n")
	}
	m.write("/proc/self/mountinfo", text.String())
}

// TestWhatARebootEmptiesIsKnown goes through the ways in which people set up machines that forget.
func TestWhatARebootEmptiesIsKnown(t *testing.T) {
	const log = "/var/log/ferry"
	for name, c := range map[string]struct {
		mounts []string
		also   func(m *fakeMachine)
		want   []string
	}{
		"an ordinary machine":                        {[]string{"/ ext4", "/run tmpfs", "/tmp tmpfs"}, nil, nil},
		"a root in memory":                           {[]string{"/ tmpfs", "/nix ext4"}, nil, []string{agent.Folder, log}},
		"and a /var that is kept":                    {[]string{"/ tmpfs", "/nix ext4", "/persist ext4", "/var ext4"}, nil, nil},
		"and a /var/log that is kept":                {[]string{"/ tmpfs", "/nix ext4", "/var/log ext4"}, nil, []string{agent.Folder}},
		"and a /var/log that is a link to what is":   {[]string{"/ tmpfs", "/nix ext4", "/persist ext4"}, func(m *fakeMachine) { m.write("/persist/log/.keep", ""); m.link("/persist/log", "/var/log") }, []string{agent.Folder}},
		"a live image":                               {[]string{"/ tmpfs", "/nix/.rw-store tmpfs", "/nix/store overlay upperdir=/nix/.rw-store/store"}, nil, []string{"/nix/var/nix", agent.Folder, log}},
		"an overlay whose upper folder is in memory": {[]string{"/ ext4", "/overlay tmpfs", "/var overlay lowerdir=/x,upperdir=/overlay/var"}, func(m *fakeMachine) { m.write("/overlay/var/.keep", "") }, []string{agent.Folder, log}},
		"an overlay whose upper folder is kept":      {[]string{"/ ext4", "/var overlay lowerdir=/x,upperdir=/overlay/var"}, func(m *fakeMachine) { m.write("/overlay/var/.keep", "") }, nil},
		"a container on an overlay of its host's":    {[]string{"/ overlay lowerdir=/x,upperdir=/tmp/host/upper", "/tmp tmpfs"}, nil, nil},
		"a file system that is rolled back at boot":  {[]string{"/ zfs", "/nix zfs"}, func(m *fakeMachine) { m.link(string(oldSystem), gcRoots+"/"+previousSystem) }, []string{log}},
		"one that is not": {[]string{"/ zfs", "/nix zfs"}, func(m *fakeMachine) {
			m.link(string(oldSystem), gcRoots+"/"+previousSystem)
			m.write(journalFile, "")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mounted(c.mounts...)
			if c.also != nil {
				c.also(m)
			}
			if got := m.connect(Options{}).hello.Facts.Emptied; !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestAnEtcNixosThatCannotBeWrittenIsKnown before a deployment needs it, and one that can is not complained of.
func TestAnEtcNixosThatCannotBeWrittenIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		make func(m *fakeMachine)
		want string
	}{
		"an ordinary folder": {func(m *fakeMachine) { m.mounted("/ ext4") }, ""},
		"none yet":           {func(m *fakeMachine) { _ = os.RemoveAll(m.path("/etc/nixos")); m.mounted("/ ext4") }, ""},
		"a link to a folder elsewhere": {func(m *fakeMachine) {
			_ = os.RemoveAll(m.path("/etc/nixos"))
			m.write("/home/alice/nixos/.keep", "")
			m.link("/home/alice/nixos", "/etc/nixos")
		}, ""},
		"a link to a folder that is not there": {unwritable["a link to a folder that is not there"], "/etc/nixos is a link to persisted/nixos, which is not there"},
		"a file":                               {unwritable["a file"], "/etc/nixos is no folder"},
		"an /etc that is an immutable overlay": {func(m *fakeMachine) { m.mounted("/ ext4", "/etc overlay ro,lowerdir=/x") }, "/etc/nixos is mounted read-only"},
		"an immutable overlay without the folder": {func(m *fakeMachine) {
			_ = os.RemoveAll(m.path("/etc/nixos"))
			m.mounted("/ ext4", "/etc overlay ro,lowerdir=/x")
		}, "/etc is mounted read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			c.make(m)
			if got := m.connect(Options{}).hello.Facts.NoLink; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestAStaleLinkInAnEtcThatCannotBeWrittenIsNotComplainedOf locks that nothing is asked for that nobody can do.
func TestAStaleLinkInAnEtcThatCannotBeWrittenIsNotComplainedOf(t *testing.T) {
	m := newMachine(t).healthy()
	m.again(string(newBundle), currentConfiguration)
	m.mounted("/ ext4", "/etc overlay ro,lowerdir=/x")
	if troubles := m.rootTroubles(string(oldSystem)); len(troubles) != 0 {
		t.Errorf("%+v", troubles)
	}
	if got := m.currentBundle(); got != string(oldBundle) {
		t.Errorf("the bundle is %s", filepath.Base(got))
	}
}
