package safe_test

import (
	"testing"

	"ferry/internal/lab"
)

// mallorysWork is what an unprivileged user of a target does all the time, to whatever is there of ferry's and NixOS's: opens it,
// holds its lock, also by way of a sudo that waits for a password, writes to it, puts links, pipes and files beside it and in the
// places that the list of processes names, and fills /tmp. What she gains is in the file won.
const mallorysWork = `#!/bin/sh
mkdir -p /dev/shm/mallory /tmp/mallory /var/tmp/mallory
cd /dev/shm/mallory || exit 1
try() { "$@" 2>/dev/null && echo "$*" >>won; }
while :; do
	find /run/ferry /run/nixos /var/lib/ferry /var/log/ferry -printf '%i-%m %p\n' 2>/dev/null >found
	while read -r id f; do
		[ ! -e "seen-$id" ] || continue
		: >"seen-$id"
		case $f in
		*.lock) F=$f setsid sh -c 'exec 9<"$F" && flock 9; sleep 3600 | sudo -S -p "" true' >/dev/null 2>&1 & ;;
		*) [ ! -r "$f" ] || F=$f setsid sh -c 'exec 9<"$F" && flock 9; exec sleep 3600' >/dev/null 2>&1 & ;;
		esac
		if [ -d "$f" ]; then
			try ln -s /etc/shadow "$f/mallory"
			try ln -s /root/.ssh/authorized_keys "$f/verdict"
			try mkfifo "$f/begun"
			try mkdir "$f/status"
			try touch "$f/state.new"
			for i in 1 2 3 4 5 6 7 8 9; do try touch "$f/full-$i"; done
		else
			try truncate -s 0 "$f"
			ln "$f" "/var/tmp/mallory/hard-$id" 2>/dev/null
			try mv "$f" /tmp/mallory/
		fi
		try chmod 777 "$f"
	done <found
	ps axww -o args= | grep -o '/run/ferry/[-a-z0-9/]*' | sort -u | while read -r f; do
		[ "${f%/*}" = /run/ferry ] || [ -e "$f" ] || try ln -s /root/.ssh/authorized_keys "$f"
	done
	head -c 64M /dev/zero >/tmp/mallory/full 2>/dev/null
	sleep 0.1
done
`

const mallorysUnit = `[Service]
User=mallory
ExecStart=/usr/local/bin/mallory
Restart=always
`

// localUnits is where a machine's own units are, which no system brings.
const localUnits = "/usr/local/lib/systemd/system"

// letMalloryIn makes mallory a user of the target, who begins at every boot.
func (x *trial) letMalloryIn() {
	x.T.Helper()
	for name, text := range map[string]string{"/usr/local/bin/mallory": mallorysWork, localUnits + "/mallory.service": mallorysUnit} {
		if err := x.Target.WriteFile(x.T.Context(), name, []byte(text), 0o755); err != nil {
			x.T.Fatal(err)
		}
	}
	const wants = localUnits + "/multi-user.target.wants"
	x.OnTarget("sh", "-c", "mkdir -p "+wants+" && ln -s ../mallory.service "+wants)
	// /tmp, so that it can be filled.
	x.OnTarget("sh", "-c", "useradd --system mallory && mount -o remount,size=8m /tmp && systemctl daemon-reload && systemctl start mallory")
}

// wideLocks are the locks as NixOS's own program and the script of an older bundle make them.
const wideLocks = "/run/ferry/lock /run/ferry/work /run/nixos/switch-to-configuration.lock"

// opensTheLocks makes the locks so that everybody can open them, and returns when mallory holds them all.
func (x *trial) opensTheLocks() {
	x.T.Helper()
	x.NothingRunsThere()
	x.OnTarget("sh", "-c", `mkdir -p /run/ferry /run/nixos
for lock in `+wideLocks+`; do rm -f $lock; install -m 644 /dev/null $lock; done
for lock in `+wideLocks+`; do
	tries=0
	while flock -n $lock true; do
		tries=$((tries + 1))
		[ $tries -le 600 ] || { echo "mallory does not hold $lock" >&2; exit 1; }
		sleep 0.05
	done
done`)
}

// precious is what belongs to others than mallory: how it is, and what is in it.
const precious = `stat -c '%a %U %G %n' / /etc /etc/passwd /etc/shadow /etc/group /root /root/.ssh /run /run/ferry /var/lib/ferry /var/log/ferry /tmp
sha256sum /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys
# An activation may put their lines into another order.
for file in passwd shadow group; do sort /etc/$file | sha256sum; done`

// gainsNothing looks what mallory has made of a deployment: every file of root's has the mode and the owner that it should.
func (x *trial) gainsNothing(before string) {
	x.T.Helper()
	if now := x.OnTarget("sh", "-c", precious); now != before {
		x.T.Errorf("what is not hers was:\n%s\nand is:\n%s", before, now)
	}
	const wrong = `cat /dev/shm/mallory/won 2>/dev/null
find /run/ferry /run/nixos /var/lib/ferry /var/log/ferry ! -type l \( ! -user root -o -perm /022 \) -printf 'others may write: %m %u %p\n' 2>/dev/null
find /run/ferry -mindepth 1 ! -name shown -perm /044 -printf 'others may read: %m %p\n'
find ` + wideLocks + ` -perm /077 -printf 'others may open: %m %p\n' 2>/dev/null
pgrep -u mallory mallory >/dev/null || echo she is not there
[ "$(pgrep -c -u mallory sleep)" -gt 3 ] || echo she has hardly anything open`
	if found := x.OnTarget("sh", "-c", wrong); found != "" {
		x.T.Errorf("%s", found)
	}
}

// TestALocalUserHasNoSay deploys in every way while mallory, a user with no rights, does what she can: nothing of it changes what
// becomes of the deployments, or anything of root's.
func TestALocalUserHasNoSay(t *testing.T) {
	type step struct {
		name string
		do   func(x *trial)
	}
	deploys := func(flags ...string) func(x *trial) {
		return func(x *trial) {
			greeting := x.rewrite("")
			if o := x.deploys(flags...); o.Status != 0 {
				x.T.Errorf("status %d", o.Status)
			}
			if len(flags) == 0 {
				x.isNew(greeting)
			}
		}
	}
	tests := step{"test", deploys("--action", "test")}
	goesBack := step{"a switch that fails", func(x *trial) {
		before := x.State()
		x.rewrite(`system.activationScripts.broken = "false";`)
		x.deploys().Fails(x.T, 4, "web: activate: the activation script failed (exit status 2): broken; the target rolled back to ", "the whole log is on the target")
		x.is(before)
	}}
	unconfirmed := step{"a switch that is not confirmed", func(x *trial) {
		before := x.State()
		x.rewrite("")
		cmd, ended := x.begin(confirm, quickly)
		x.dies(cmd, ended)
		x.goesBack()
		x.goOn(confirm)
		x.is(before)
	}}
	rollback := step{"rollback", func(x *trial) {
		if o := x.Ferry("rollback", "--sudo-password-file", x.Password); o.Status != 0 {
			x.T.Errorf("status %d", o.Status)
		}
	}}
	script := step{"the bundle's own script", func(x *trial) {
		x.OnTarget("/etc/nixos/current-configuration/nixos-rebuild-switch", "boot")
	}}
	for login, c := range map[string]struct {
		elevate string
		steps   []step
	}{
		"alice": {"", []step{{"switch", deploys()}, goesBack, rollback, script}},
		"root":  {"", []step{unconfirmed, tests, {"boot", deploys("--action", "boot")}, {"reboot", deploys("--reboot", "--yes")}}},
		"dave":  {"    elevate = \"doas\";\n", []step{{"switch", deploys()}, unconfirmed, tests}},
	} {
		t.Run(login, func(t *testing.T) {
			t.Parallel()
			x := newTrialAs(t, login, c.elevate, lab.Options{})
			x.letMalloryIn()
			for _, s := range c.steps {
				t.Run(s.name, func(t *testing.T) {
					x := x.in(t)
					x.opensTheLocks()
					before := x.OnTarget("sh", "-c", precious)
					s.do(x)
					x.gainsNothing(before)
				})
			}
		})
	}
}
