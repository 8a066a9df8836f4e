package server

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

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
		"and a /var/log that is a link to what is":   {[]string{"/ tmpfs", "/nix ext4", "/persist ext4"}, func(m *fakeMachine) { m.Write("/persist/log/.keep", ""); m.Link("/persist/log", "/var/log") }, []string{agent.Folder}},
		"a live image":                               {[]string{"/ tmpfs", "/nix/.rw-store tmpfs", "/nix/store overlay upperdir=/nix/.rw-store/store"}, nil, []string{"/nix/var/nix", agent.Folder, log}},
		"an overlay whose upper folder is in memory": {[]string{"/ ext4", "/overlay tmpfs", "/var overlay lowerdir=/x,upperdir=/overlay/var"}, func(m *fakeMachine) { m.Write("/overlay/var/.keep", "") }, []string{agent.Folder, log}},
		"an overlay whose upper folder is kept":      {[]string{"/ ext4", "/var overlay lowerdir=/x,upperdir=/overlay/var"}, func(m *fakeMachine) { m.Write("/overlay/var/.keep", "") }, nil},
		"a container on an overlay of its host's":    {[]string{"/ overlay lowerdir=/x,upperdir=/tmp/host/upper", "/tmp tmpfs"}, nil, nil},
		"a file system that is rolled back at boot":  {[]string{"/ zfs", "/nix zfs"}, func(m *fakeMachine) { m.Link(string(oldSystem), machine.GCRoots+"/"+previousSystem) }, []string{log}},
		"one that is not": {[]string{"/ zfs", "/nix zfs"}, func(m *fakeMachine) {
			m.Link(string(oldSystem), machine.GCRoots+"/"+previousSystem)
			m.Write(journalFile, "")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Mounted(c.mounts...)
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
		"an ordinary folder": {func(m *fakeMachine) { m.Mounted("/ ext4") }, ""},
		"none yet":           {func(m *fakeMachine) { _ = os.RemoveAll(m.Path("/etc/nixos")); m.Mounted("/ ext4") }, ""},
		"a link to a folder elsewhere": {func(m *fakeMachine) {
			_ = os.RemoveAll(m.Path("/etc/nixos"))
			m.Write("/home/alice/nixos/.keep", "")
			m.Link("/home/alice/nixos", "/etc/nixos")
		}, ""},
		"a link to a folder that is not there": {unwritable["a link to a folder that is not there"], "/etc/nixos is a link to persisted/nixos, which is not there"},
		"a file":                               {unwritable["a file"], "/etc/nixos is no folder"},
		"an /etc that is an immutable overlay": {func(m *fakeMachine) { m.Mounted("/ ext4", "/etc overlay ro,lowerdir=/x") }, "/etc/nixos is mounted read-only"},
		"an immutable overlay without the folder": {func(m *fakeMachine) {
			_ = os.RemoveAll(m.Path("/etc/nixos"))
			m.Mounted("/ ext4", "/etc overlay ro,lowerdir=/x")
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
	m.Mounted("/ ext4", "/etc overlay ro,lowerdir=/x")
	if troubles := rootTroubles(m.Root, string(oldSystem)); len(troubles) != 0 {
		t.Errorf("%+v", troubles)
	}
	if got := currentBundle(m.Root); got != string(oldBundle) {
		t.Errorf("the bundle is %s", filepath.Base(got))
	}
}
