package chaos_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// protection is what files of ferry's on a target must be like.
type protection struct {
	pattern string
	most    fs.FileMode // no more than that may be permitted
	kind    string      // as stat's %F says it; "": any
}

// protections are for all there is of ferry's on a target: the first that fits a file counts. They belong to root, unless it is the
// login user who has to write there.
var protections = []protection{
	{"/run/ferry", 0o755, "directory"}, // see "Other users of the machine" in doc/safety.md
	{"/run/ferry/lock", 0o600, "regular file"},
	{"/run/ferry/work", 0o600, "regular file"},
	{"/run/ferry/journal", 0o600, "regular file"},
	{"/run/ferry/*-*", 0o711, "directory"},
	{"/run/ferry/*-*/expect", 0o700, "directory"},
	{"/run/ferry/*-*/shown", 0o644, "regular file"},
	{"/run/ferry/*-*/*", 0o600, "regular file"},
	{"/run/ferry/*", 0o700, ""},
	{"/run/nixos/switch-to-configuration.lock", 0o600, "regular file"},
	{"/var/lib/ferry", 0o755, "directory"},
	{"/var/lib/ferry/last-accounts", 0o600, ""},
	{"/var/lib/ferry/agent-*", 0o755, "regular file"},
	{"/var/log/ferry", 0o755, "directory"},
	{"/var/log/ferry/*", 0o644, "regular file"},
	{"/nix/var/nix/gcroots/ferry", 0o755, "directory"},
}

// protectionScript prints what files of the pattern are like, in stat's words.
func protectionScript() string {
	var b strings.Builder
	for _, p := range protections {
		fmt.Fprintf(&b, "stat -c '%s|%%n|%%a|%%u|%%F' %s 2>/dev/null\n", p.pattern, p.pattern)
	}
	return b.String()
}

// unprotected says which files are open to more people than they should be, of what protectionScript has printed.
func unprotected(said string) (violations []string) {
	seen := map[string]bool{}
	for line := range strings.Lines(said) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(fields) != 5 || seen[fields[1]] {
			continue
		}
		seen[fields[1]] = true
		for _, p := range protections {
			if p.pattern != fields[0] {
				continue
			}
			mode, err := strconv.ParseUint(fields[2], 8, 32)
			if err != nil || fs.FileMode(mode)&^p.most != 0 || fields[3] != "0" {
				violations = append(violations, fmt.Sprintf("%s has the mode %s and is of user %s: want %o at most, and root", fields[1], fields[2], fields[3], p.most))
			}
			if kind := strings.Replace(fields[4], "regular empty file", "regular file", 1); p.kind != "" && kind != p.kind {
				violations = append(violations, fmt.Sprintf("%s is a %s, and no %s", fields[1], fields[4], p.kind))
			}
		}
	}
	return violations
}

// accountsScript prints all that says who may log in and become root, and as whom. Numbers that users have got stay theirs, in
// other files.
const accountsScript = `for file in /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid /var/lib/nixos/declarative-* /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
	[ ! -e "$file" ] || { stat -c '== %n %a %U:%G' "$file"; cat "$file"; }
done`

// leakScript prints files of ferry's that have a password in them, as a hash, and are open to others than root.
const leakScript = `find /run/ferry /var/lib/ferry /var/log/ferry -type f '(' -perm /077 -o ! -user root ')' -exec grep -l '[$]6[$]' {} + 2>/dev/null; true`

// storeScript verifies that the store has what its database says; with contents whether it is that, too.
const storeScript = `nix-store --verify %s 2>&1 | grep -v -e '^reading the Nix store' -e '^checking path existence' -e '^checking link' -e '^checking hashes' -e '^checking store hashes'`

// armedScript prints what would still do something on its own, or keeps something alive for that.
const armedScript = `systemctl list-timers --all --no-legend 'ferry-*'
systemctl list-unit-files --no-legend 'ferry-*' 2>/dev/null
ls -d /etc/systemd/system.control/*ferry* /run/systemd/transient/ferry-* /run/systemd/system/ferry-* /var/lib/ferry/reboot /var/lib/ferry/accounts /var/lib/ferry/armed-* \
	/nix/var/nix/gcroots/ferry/back /nix/var/nix/gcroots/ferry/reboot-* /etc/lab/efivars/LoaderEntryOneShot 2>/dev/null
true`

// remains are what a machine that was restarted in the middle has on it until the next deployment, which removes them: nothing starts
// them.
var remains = []string{"/var/lib/ferry/accounts", "/nix/var/nix/gcroots/ferry/back", "/var/lib/ferry/armed-"}

// stillArmed says what armedScript has printed, but for what may remain.
func stillArmed(said string, restarted bool) (violations []string) {
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		mayRemain := slices.ContainsFunc(remains, func(name string) bool { return strings.HasPrefix(line, name) })
		if line != "" && !(restarted && mayRemain) {
			violations = append(violations, "something is armed: "+line)
		}
	}
	return violations
}

// changed are the lines that two texts do not have in common.
func changed(before, after string) string {
	var lines []string
	had, has := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(before) {
		had[line] = true
	}
	for line := range strings.Lines(after) {
		has[line] = true
		if !had[line] {
			lines = append(lines, "+"+line)
		}
	}
	for line := range strings.Lines(before) {
		if !has[line] {
			lines = append(lines, "-"+line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, ""))
}
