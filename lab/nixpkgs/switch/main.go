// Command switch is the switch-to-configuration of the stand-in's systems. It does what NixOS's own program does, as far as the
// lab's machines can show it: phases, lock, statuses, decisions, messages. RULES says which program's ways it has: that of
// 2026, that of 2024-09, or the one in Perl from before. It is not a part of ferry.
//
// The program is started by TOPLEVEL/bin/switch-to-configuration, which sets what it reads of its environment: OUT, TOPLEVEL,
// DISTRO_ID, INSTALL_BOOTLOADER, PRE_SWITCH_CHECK and SYSTEMD as NixOS's wrapper does, RULES, and FAULT_* for tests.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	stateFolder   = "/run/nixos"
	currentSystem = "/run/current-system"
	etcUnits      = "/etc/systemd/system"
	userUnits     = "/etc/systemd/user"
)

// parentVariable marks the process that does a user's part.
const parentVariable = "__NIXOS_SWITCH_TO_CONFIGURATION_PARENT_EXE"

func main() {
	action := ""
	if len(os.Args) > 1 {
		action = os.Args[1]
	}
	rules := dialect(os.Getenv("RULES"))
	if os.Getenv(parentVariable) != "" {
		os.Exit(statusOf(switchUser(rules)))
	}
	os.Exit(statusOf(switchSystem(rules, action)))
}

// exit is an end with a status, after all that there is to say has been said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("status %d", int(e)) }

// message is an error in the program's own words, which begin with a capital.
type message struct {
	text string
	err  error
}

func (m message) Error() string {
	if m.err == nil {
		return m.text
	}
	return m.text + ": " + m.err.Error()
}

// statusOf says what there is to say about an error and gives the status that it ends with.
func statusOf(err error) int {
	var status exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	say("Error: %v", err)
	return 1
}

// say prints a line. That nobody reads it any more ends the program, as a panic would.
func say(format string, args ...any) {
	if _, err := fmt.Fprintf(os.Stderr, format+"\n", args...); err != nil {
		os.Exit(101)
	}
}

// tell says which units something happens to, if there are any.
func tell(what string, units set) {
	if len(units) > 0 {
		say("%s: %s", what, strings.Join(units.sorted(), ", "))
	}
}

// machine is a switch of the system.
type machine struct {
	rules         dialect
	action        string
	out, toplevel string
	fault         fault
	status        int
	lists         lists
	oldSystem     string // what ran when this began

	bus    *systemd // nil: the machine has no systemd
	states map[string]unitState
	plan   *plan
	units  *comparison
	reexec bool // systemd has to start itself anew
	jobs   []asked
}

func usage(rules dialect) error {
	actions := "[check|switch|boot|test|dry-activate]"
	if rules != today {
		actions = "[switch|boot|test|dry-activate]"
	}
	say("Usage: %s %s", os.Args[0], actions)
	if rules == today {
		say("check:        run pre-switch checks and exit")
	}
	say("switch:       make the configuration the boot default and activate now")
	say("boot:         make the configuration the boot default")
	say("test:         activate the configuration, but don't make it the boot default")
	say("dry-activate: show what would be done if this configuration were activated")
	return exit(1)
}

func switchSystem(rules dialect, action string) error {
	switch action {
	case "switch", "boot", "test", "dry-activate":
	case "check":
		if rules != today {
			return usage(rules)
		}
	default:
		return usage(rules)
	}
	if os.Getuid() != 0 {
		say("%s must be run as the root user", os.Args[0])
		return exit(1)
	}
	m := &machine{rules: rules, action: action, lists: lists{stateFolder}, plan: newPlan(), oldSystem: programOf(currentSystem)}
	for name, value := range map[string]*string{"OUT": &m.out, "TOPLEVEL": &m.toplevel} {
		if *value = os.Getenv(name); *value == "" {
			return fmt.Errorf("%s is not set", name)
		}
	}
	m.fault = readFault(action)
	if err := isNixOS(); err != nil {
		return err
	}
	if err := os.Setenv("NIXOS_ACTION", action); err != nil {
		return err
	}
	if err := os.MkdirAll(stateFolder, 0o755); err != nil {
		return err
	}
	if err := takeLock(rules); err != nil {
		return err
	}
	return m.run()
}

func isNixOS() error {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return err
	}
	if _, err := os.Stat("/etc/NIXOS"); err == nil {
		return nil
	}
	if regexp.MustCompile(`(?m)^ID="?(` + os.Getenv("DISTRO_ID") + `)"?$`).Match(text) {
		return nil
	}
	say("This is not a NixOS installation!")
	return exit(int(syscall.ENOENT))
}

// takeLock takes the lock for the rest of the process's life: today without waiting. The program in Perl knew of none.
func takeLock(rules dialect) error {
	if rules == perl {
		return nil
	}
	lock, err := unix.Open(stateFolder+"/switch-to-configuration.lock", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		say("Could not open lock")
		return exit(int(err.(syscall.Errno)))
	}
	how := unix.LOCK_EX
	if rules == today {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(lock, how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		say("Could not acquire lock")
		return exit(int(err.(syscall.Errno)))
	}
	return nil
}

// run does all that comes after the lock.
func (m *machine) run() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		say("warning: systemd does not run here, units are left as they are")
	}
	if done, err := m.prepare(); done || err != nil {
		return err
	}
	note("switching to system configuration " + m.toplevel)
	if err := m.look(); err != nil {
		return err
	}
	if m.action == "dry-activate" {
		return m.foretell()
	}
	if err := m.stopUnits(); err != nil {
		return err
	}
	if err := m.activate(); err != nil {
		return err
	}
	if m.bus != nil {
		if err := m.restartUnits(); err != nil {
			return err
		}
	}
	m.fault.strike("end")
	if m.status != 0 {
		note(fmt.Sprintf("switching to system configuration %s failed (status %d)", m.toplevel, m.status))
		return exit(m.status)
	}
	note("finished switching to system configuration " + m.toplevel)
	return nil
}

// prepare does what comes before units are looked at: checks, boot loader, whether the machine can be switched at all.
func (m *machine) prepare() (done bool, err error) {
	m.fault.strike("check")
	if m.rules == today && os.Getenv("NIXOS_NO_CHECK") != "1" {
		check := strings.Fields(os.Getenv("PRE_SWITCH_CHECK"))
		if len(check) == 0 || start(append(check, m.toplevel, m.action)...) != nil {
			say("Pre-switch checks failed")
			return true, exit(1)
		}
	}
	if m.action == "check" {
		return true, nil
	}
	if m.action == "switch" || m.action == "boot" {
		m.fault.strike("boot")
		if err := start(append(strings.Fields(os.Getenv("INSTALL_BOOTLOADER")), m.toplevel)...); err != nil {
			say("Failed to install bootloader")
			return true, exit(1)
		}
	}
	if os.Getenv("NIXOS_NO_SYNC") != "1" {
		if store, err := os.Open("/nix/store"); err == nil {
			err = unix.Syncfs(int(store.Fd()))
			_ = store.Close()
			if err != nil {
				return true, fmt.Errorf("sync /nix/store: %w", err)
			}
		}
	}
	if m.action == "boot" {
		return true, nil
	}
	was, err := os.ReadFile(currentSystem + "/init-interface-version")
	is, missing := os.ReadFile(m.toplevel + "/init-interface-version")
	if missing != nil {
		return true, missing
	}
	if _, gone := os.Stat(currentSystem); gone == nil && (err != nil || string(was) != string(is)) {
		say("Warning: the new NixOS configuration has an ‘init’ that is")
		say("incompatible with the current configuration. The new configuration")
		say("won't take effect until you reboot the system.\n")
		return true, exit(100)
	}
	return false, nil
}

// activate runs the system's activation script.
func (m *machine) activate() error {
	m.fault.strike("activate")
	say("activating the configuration...")
	script := m.out + "/activate"
	if _, err := os.Stat(script); err == nil {
		if err := start(script, m.out); err != nil {
			say("Failed to run activate script")
			m.status = 2
		}
	}
	m.fault.strike("units")
	return nil
}

// programOf is where a link ends; "" if nowhere.
func programOf(link string) string {
	target, err := filepath.EvalSymlinks(link)
	if err != nil {
		return ""
	}
	return target
}
