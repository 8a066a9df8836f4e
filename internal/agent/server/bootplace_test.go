package server

import (
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
)

const rootAndBoot = `22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
28 22 8:1 / /boot rw,relatime shared:2 - vfat /dev/sda1 rw
`

// mountsAtThe makes what is mounted become another when a system's switch-to-configuration is asked for an action.
func (m *fakeMachine) mountsAtThe(action, text string) {
	m.Write("/control/mountinfo", text)
	m.Program(string(newSystem)+"/bin/switch-to-configuration", strings.Replace(switchScript, "status=0\n",
		`[ "$1" != `+action+` ] || cat "$FERRY_TEST_ROOT/control/mountinfo" >"$FERRY_TEST_ROOT/proc/self/mountinfo"`+"\nstatus=0\n", 1))
}

// TestAMenuThatIsWrittenElsewhereIsNoCommit has an activation, or the boot loader's installation, or somebody else meanwhile, take
// away the file system that the machine boots from: the installer is content with the folder that is left.
func TestAMenuThatIsWrittenElsewhereIsNoCommit(t *testing.T) {
	const (
		unmounted = "the commit failed: /dev/sda1 (vfat), which the boot loader's files were on, is not mounted any more on /boot"
		inMemory  = "the commit failed: a file system in memory has been mounted on /boot, which the boot loader's files are in"
	)
	onlyRoot, _, _ := strings.Cut(rootAndBoot, "\n")
	for name, c := range map[string]struct {
		action, before, after, says string
		writes                      bool // the boot loader
	}{
		"the activation unmounts it":  {"test", rootAndBoot, onlyRoot + "\n", unmounted, false},
		"it goes during the commit":   {"boot", rootAndBoot, onlyRoot + "\n", unmounted, true},
		"another one hides it":        {"test", rootAndBoot, rootAndBoot + "30 28 8:3 / /boot rw - ext4 /dev/sda3 rw\n", unmounted, false},
		"one above it hides it":       {"test", strings.Replace(rootAndBoot, "/boot", "/boot/efi", 1), rootAndBoot + "30 28 0:50 / /boot rw - ext4 /dev/sda3 rw\n", unmounted + "/efi", false},
		"memory is mounted on it":     {"boot", onlyRoot + "\n", onlyRoot + "\n30 22 0:50 / /boot rw - tmpfs x rw\n", inMemory, true},
		"it is mounted anew":          {"test", rootAndBoot, strings.Replace(rootAndBoot, "8:1 /", "8:17 /", 1), "", true},
		"it is mounted elsewhere":     {"test", rootAndBoot, strings.Replace(rootAndBoot, "/boot", "/efi", 1), "", true},
		"a folder of it is read-only": {"test", onlyRoot + "\n", onlyRoot + "\n30 22 8:2 /boot /boot ro - ext4 /dev/sda2 rw\n", "", true},
		"it was, and is not any more": {"test", onlyRoot + "\n30 22 8:2 /boot /boot ro - ext4 /dev/sda2 rw\n", onlyRoot + "\n", "", true},
		"a subvolume is unmounted": {
			"test", "22 1 0:30 /@ / rw - btrfs /dev/sda2 rw\n28 22 0:30 /@boot /boot rw - btrfs /dev/sda2 rw\n",
			"22 1 0:30 /@ / rw - btrfs /dev/sda2 rw\n", strings.Replace(unmounted, "sda1 (vfat)", "sda2 (btrfs)", 1), false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			m.Write("/proc/self/mountinfo", c.before)
			m.mountsAtThe(c.action, c.after)
			f := m.connect(locked("s1"))
			r, _ := f.ask(guarded("switch"))
			waits(t, r)
			r, _ = f.ask(finish(agent.VerdictConfirm))
			if wrote := slices.Contains(m.calls(), "1-new boot"); wrote != c.writes {
				t.Errorf("the boot loader was written: %v; ran %q", wrote, m.calls())
			}
			if c.says == "" {
				if r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
					t.Errorf("%+v, %v", r.Switch, r.Error)
				}
				return
			}
			if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.Reason != c.says {
				t.Errorf("%+v, %v", r.Switch, r.Error)
			}
			m.isOld()
		})
	}
	t.Run("without an activation", func(t *testing.T) {
		m := newMachine(t)
		m.Write("/proc/self/mountinfo", rootAndBoot)
		m.mountsAtThe("boot", onlyRoot+"\n")
		got, _ := m.connect(locked("s1")).ask(commitment("boot"))
		if got.Error != nil || got.Commit.Status != -1 || "the commit failed: "+got.Commit.Error != unmounted {
			t.Errorf("%+v, %v", got.Commit, got.Error)
		}
		m.isOld()
	})
}
