package chaos_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// look is what counts of a target.
type look struct {
	runs, profile, boots string // toplevels
	kept                 string // the toplevel of the bundle that is kept
	logins               []string
	journal              []string // what has come to the journal in this round

	// What the target says of its files: see invariant_test.go.
	armed, accounts, store, open, leaked string

	etc, greeting, unit string // what of the system is in /etc, in a file there, and in the unit that runs
	active              string // of the units
	failed, strays      string
	// stale says that /run was filled up while the target was going back already: systemd did then not read the old units.
	stale bool
}

const lookScript = `
echo runs=$(readlink -f /run/current-system)
echo profile=$(readlink -f /nix/var/nix/profiles/system)
echo kept=$(readlink -f /nix/var/nix/gcroots/ferry/current-configuration/profile)
echo logins=$(sort -u ` + loginsFile + `)
echo etc=$(readlink -f /etc/static)
echo greeting=$(cat /etc/greeting)
echo unit=$(tr '\0' '\n' <"/proc/$(systemctl show -p MainPID --value greeter)/environ" | sed -n 's/^GREETING=//p')
echo active=$(systemctl is-active greeter sshd)
echo failed=$(systemctl list-units --failed --plain --no-legend | cut -d ' ' -f 1)
echo strays=$(pgrep -af 'sleep 777[0-9]')
for log in $(ls -t /run/ferry/*-switch/log | head -n 1); do
	[ "$log" -nt ` + roundFile + ` ] && grep -q 'Refusing to reload' "$log" && ! grep -q '^ferry: /run is full' "$log" && echo stale=yes
done
true
`

// journalScript prints the journal's lines from one on.
const journalScript = "cat /var/log/ferry/deployments.jsonl 2>/dev/null | tail -n +%d"

// look looks at the target; all that its store has is read as well, if asked for.
func (m *machine) look(ctx context.Context, contents bool) (look, error) {
	out, err := m.Target.Output(ctx, "sh", "-c", lookScript)
	if err != nil {
		return look{}, err
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		said[key] = value
	}
	boots, err := m.Target.BootDefault(ctx)
	if err != nil {
		return look{}, err
	}
	verify := fmt.Sprintf(storeScript, "")
	if contents {
		verify = fmt.Sprintf(storeScript, "--check-contents")
	}
	journal := m.says(ctx, fmt.Sprintf(journalScript, m.entries+1))
	return look{
		runs: said["runs"], profile: said["profile"], boots: boots, kept: said["kept"],
		journal: slices.DeleteFunc(strings.Split(journal, "\n"), func(line string) bool { return line == "" }),
		armed:   m.says(ctx, armedScript), accounts: m.says(ctx, accountsScript), store: m.says(ctx, verify), open: m.says(ctx, protectionScript()),
		leaked: m.says(ctx, leakScript),
		logins: strings.Fields(said["logins"]),
		etc:    said["etc"], greeting: said["greeting"], unit: said["unit"], active: said["active"],
		failed: said["failed"], strays: said["strays"], stale: said["stale"] != "",
	}, nil
}

// describe says what the target is, with the systems' names.
func (l look) describe(m *machine) string {
	return fmt.Sprintf("it runs %s and boots %s, its profile is %s, it keeps %s; /etc is %s and says %q, its unit %q; units %s; failed: %s",
		m.nameOf(l.runs), m.nameOf(l.boots), m.nameOf(l.profile), m.nameOf(l.kept), m.nameOf(strings.TrimSuffix(l.etc, "/etc")),
		l.greeting, l.unit, l.active, l.failed)
}

// whole says what of the system that runs is missing or another's.
func (l look) whole(m *machine) (violations []string) {
	name := m.nameOf(l.runs)
	// Its files in /etc are those of a copy of its etc, which many systems may have in common.
	etc, err := m.Builder.Output(m.T.Context(), "readlink", "-f", l.runs+"/etc")
	if err != nil {
		violations = append(violations, err.Error())
	}
	if want := strings.TrimSpace(string(etc)); l.etc != want {
		violations = append(violations, fmt.Sprintf("%s runs, and /etc is of %s instead of %s", name, l.etc, want))
	}
	if l.greeting != name || l.unit != name && !l.stale {
		violations = append(violations, fmt.Sprintf("%s runs, and its file says %q, its unit %q", name, l.greeting, l.unit))
	}
	if l.active != "active active" {
		violations = append(violations, fmt.Sprintf("greeter and sshd are %s", l.active))
	}
	if l.failed != "" {
		violations = append(violations, "units have failed: "+l.failed)
	}
	if l.strays != "" {
		violations = append(violations, "processes of an activation are left: "+l.strays)
	}
	if l.store != "" {
		violations = append(violations, "the store does not verify: "+l.store)
	}
	if different := changed(m.accounts, l.accounts); m.accounts != "" && different != "" {
		violations = append(violations, "accounts or keys have changed:\n"+different)
	}
	if l.leaked != "" {
		violations = append(violations, "passwords are in files that others may read: "+l.leaked)
	}
	return append(violations, unprotected(l.open)...)
}

// Scripts that say what of ferry's is at work: of a switch, and at all. A unit that systemd has read, and whose file is gone since,
// it remembers until it is reloaded: armedScript looks for the file.
const (
	remembered = "remembered='^ferry-accounts-back.service .* inactive *dead '\n"
	workScript = remembered + `pgrep -af '^/var/lib/ferry/(agent|armed)-[^ ]* (job|rollback)' && exit
systemctl list-units --all --plain --no-legend 'ferry-*' | grep -v "$remembered" | while read -r unit rest; do
	name=${unit#ferry-}
	name=${name#rollback-}
	# Who tidies up after one that has ended does so when the world is well.
	[ -e "/run/ferry/${name%%[-.]*}-switch/status" ] || echo "$unit $rest"
done`
	leftScript = remembered + `pgrep -af '^/var/lib/ferry/(agent|armed)-|[n]ix-store --serve' && exit
for lock in /run/ferry/lock /run/ferry/work; do [ ! -e $lock ] || flock -n $lock true || echo $lock is held; done
units=$(systemctl list-units --all --plain --no-legend 'ferry-*' 2>&1) || { echo "systemd does not answer: $units"; exit; }
echo "$units" | grep -v "$remembered"
ls -d /run/ferry/*/confirm /var/lib/ferry/reboot 2>/dev/null
find /var/lib/ferry /tmp -name '.new-*' -o -name 'ferry*' ! -path /var/lib/ferry`
)

// says runs a script of that kind.
func (m *machine) says(ctx context.Context, script string) string {
	out, err := m.Target.Output(ctx, "sh", "-c", script+"; true")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// quietLimit is how long ferry's processes on a target may go on after the world is well again: timers, and an agent that
// waits for a ferry that is gone, without a word from either.
const quietLimit = 130 * time.Second

// awaitQuiet waits until nothing of ferry's is at work on the target, and says what is. One that could not go back waits for as long
// as it has tried, which is more.
func (m *machine) awaitQuiet(ctx context.Context, more time.Duration) (left string) {
	deadline := time.Now().Add(quietLimit + more)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		left = m.says(ctx, leftScript)
		if left == "" || time.Now().After(deadline) || ctx.Err() != nil {
			return left
		}
		pause(ctx, wait)
	}
}

// awaitQuietHere waits until no process is left on the builder, and says which are.
func (m *machine) awaitQuietHere(ctx context.Context) string {
	for deadline := time.Now().Add(quietLimit); ; pause(ctx, 50*time.Millisecond) {
		left, err := m.leftHere()
		if err != nil {
			return err.Error()
		}
		if left == "" || time.Now().After(deadline) || ctx.Err() != nil {
			return left
		}
	}
}

// answers tells whether sshd greets whoever connects.
func (m *machine) answers(ctx context.Context) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); pause(ctx, 100*time.Millisecond) {
		if err = m.greets(ctx); err == nil {
			return nil
		}
	}
	return err
}

func (m *machine) greets(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(m.Target.Addr().String(), "22"))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	greeting := make([]byte, 4)
	if _, err := c.Read(greeting); err != nil {
		return err
	}
	if string(greeting) != "SSH-" {
		return fmt.Errorf("it greets with %q", greeting)
	}
	return nil
}
