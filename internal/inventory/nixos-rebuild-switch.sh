# The switch of this bundle by hand: the rest of this script needs nothing but the bundle and the target's Nix. Before it
# stand the interpreter and three variables, put there when the bundle was built: node, bundle, toplevel.
# shellcheck shell=sh disable=SC2154

set -u
PATH=$toplevel/sw/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin:/usr/sbin:/sbin
export PATH
# Set by accident, it makes the boot loader be installed anew.
unset NIXOS_INSTALL_BOOTLOADER

profile=/nix/var/nix/profiles/system
root=/nix/var/nix/gcroots/ferry/current-configuration
link=/etc/nixos/current-configuration
self=$bundle/nixos-rebuild-switch
# The file that all is printed to, where there is one.
log=

say() { printf 'nixos-rebuild-switch: %s\n' "$*" >&2; }
die() {
	say "error: $*"
	exit 1
}

usage() {
	cat <<EOF
Usage: sudo $self [switch|boot|test|dry-activate]

Makes this machine run the system of $node:
  $toplevel

  switch        run it now and at every boot (default)
  boot          run it from the next boot on
  test          run it now; the next boot is as before
  dry-activate  show what a switch would do

Exit status: 0 done, 10 wrong usage, 5 it runs and is not what boots, or the
bundle is not kept; else that of switch-to-configuration.
EOF
}

# explain STATUS: what switch-to-configuration means by it.
explain() {
	case $1 in
	1) say "it refused: a check before the switch failed, or the boot loader, or another switch is under way" ;;
	2) say "the activation script failed: the new system is partly active" ;;
	3) say "the new system is active, but reloading systemd or creating files in /tmp and /run failed" ;;
	4) say "the new system is active, but a unit failed to start: systemctl --failed" ;;
	11) say "another switch is under way, or logind could not be asked in the middle of this one: run this again" ;;
	100) say "the new system needs a reboot: sudo $self boot, then reboot" ;;
	101 | 129 | 13[0-9] | 14[0-9]) say "it was interrupted: run this again" ;;
	*) say "it failed in an unknown way" ;;
	esac
}

# user_left FROM: what was printed since the log had FROM bytes says that logind did not know a user any more of whom it had just
# told. That ends switch-to-configuration after the activation, before it has started anything; run again it does the rest.
user_left() {
	[ -n "$log" ] && tail -c "+$(($1 + 1))" "$log" | grep -q "Unknown object '/org/freedesktop/login1/user/_[0-9]*'"
}

# activate ACTION: run switch-to-configuration, and explain a failure. It does not wait for another one, and ends with 11 then:
# it is run again for half a minute. To run it again is right after any other end with 11, too. Where a user has logged out in the
# middle of it, it is run again five times at most: nobody does that in the right moment again and again by chance.
activate() {
	tries=0 left=0
	while :; do
		from=0
		[ -z "$log" ] || from=$(wc -c <"$log")
		"$toplevel/bin/switch-to-configuration" "$1" 8>&- 9>&-
		status=$?
		if [ "$status" -eq 1 ] && [ "$left" -lt 5 ] && user_left "$from"; then
			left=$((left + 1))
			say "a user has logged out while switch-to-configuration asked about them: running it once more"
		elif [ "$status" -eq 11 ] && [ "$tries" -lt 30 ]; then
			[ "$tries" -gt 0 ] || say "another switch may be under way: trying again for half a minute"
			tries=$((tries + 1))
		else
			break
		fi
		sleep 1
	done
	[ "$status" -eq 0 ] || {
		say "switch-to-configuration $1: exit status $status"
		explain "$status"
	}
	return "$status"
}

running() { readlink -f /run/current-system; }
installed() { readlink -f "$profile"; }

# keep LINK: a root of the garbage collector at LINK that keeps the bundle.
keep() {
	nix-store --realise "$bundle" --add-root "$1" --indirect >/dev/null
}

# to_disk: what the next boot needs is on the disks when this returns, whatever happens to the machine's power then. A link
# that is there before what it points at would be a machine that does not boot.
to_disk() {
	for folder in /nix/store /nix/var/nix /etc /boot /boot/efi /efi; do
		[ ! -d "$folder" ] || sync -f "$folder" || die "what was written to $folder could not be brought to the disk"
	done
}

# point LINK: make LINK point at this bundle, in one step.
point() {
	mkdir -p "${1%/*}" && ln -sfn "$bundle" "$1.new" && mv -fT "$1.new" "$1"
}

# move_root: say that this bundle is what the machine is made from. The link for people cannot be made everywhere.
move_root() {
	point "$root" || {
		say "the system is switched, but $root could not be set"
		return 5
	}
	point "$link" 2>/dev/null || say "the link $link could not be set, so only $root keeps the bundle"
	to_disk
}

# install_profile: make the system the profile's, and boot it by default. If the boot loader fails, the profile goes back.
install_profile() {
	before=$(readlink "$profile")
	to_disk
	if [ "$(installed)" != "$toplevel" ]; then
		nix-env -p "$profile" --set "$toplevel" || die "the profile $profile could not be set"
	fi
	activate boot && {
		to_disk
		return 0
	}
	status=$?
	generation=${before#system-}
	generation=${generation%-link}
	if [ -n "$before" ] && [ "$before" != "$(readlink "$profile")" ]; then
		nix-env -p "$profile" --switch-generation "$generation" &&
			say "the profile is what it was; the boot loader may be half written: run this again"
	fi
	return "$status"
}

# perform ACTION: all of it, in the order in which each step can be undone by a reboot until the last one.
perform() {
	case $1 in
	dry-activate)
		activate dry-activate
		return
		;;
	boot) install_profile || return ;;
	test | switch)
		if [ "$(running)" = "$toplevel" ] && { [ "$1" = test ] || [ "$(installed)" = "$toplevel" ]; }; then
			say "this system is running already: nothing is activated"
		else
			activate test || {
				status=$?
				say "nothing is committed: a reboot returns to the system this machine boots by default"
				return "$status"
			}
			[ "$1" = test ] || install_profile || {
				say "the new system runs, but it is not what boots"
				return 5
			}
		fi
		[ "$1" = switch ] || return 0
		;;
	esac
	move_root
}

# settle: end a switch of ferry's that nobody minds any more, before another one. The agent that it has armed knows how: it
# goes back, or to the end of a commit.
settle() {
	for job in /run/ferry/*-switch; do
		if [ ! -e "$job/job.json" ] || [ -e "$job/status" ]; then continue; fi
		name=${job##*/}
		agent=/var/lib/ferry/armed-${name%-switch}
		[ ! -x "$agent" ] || "$agent" settle 8>&- 9>&- || die "an earlier deployment by ferry could not be ended: see $job/log"
	done
}

# private FILE: only root can open it.
private() { [ -f "$1" ] && [ ! -h "$1" ] && [ "$(stat -c '%u %a' "$1")" = "0 600" ]; }

# users FILE: a line for each way in which a process has FILE open, or had before another file took its place: the number of the
# process, "w" or "-" for whether it may write, and the number of the file there.
users() {
	# shellcheck disable=SC2012 # ls is the one program that shows both the links and their modes; the names are numbers.
	LC_ALL=C ls -l /proc/[0-9]*/fd 2>/dev/null | sed -n -e 's,^/proc/\([0-9]*\)/fd:$,\1,' -e 't hold' \
		-e "\\%-> $1\( (deleted)\)\{0,1\}\$%!d" -e 's,^l.\(.\).* \([0-9]*\) -> .*$,\1 \2,' -e G -e 's,^\(.*\)\n\(.*\)$,\2 \1,p' -e d -e ': hold' -e h
}

# in_use FILE: a process of root's uses FILE as a lock. Everybody can hold a lock on a file that they can read, so that who does
# is no answer. Only root can write to it, as all do that are meant; else it has to be a process that is root's in full, and that
# no user has started with a file of theirs by way of sudo or the like (23 is AT_SECURE).
in_use() {
	users "$1" | while read -r pid how fd; do
		grep -q '^Uid:[[:space:]]*0[[:space:]]*0[[:space:]]*0[[:space:]]*0$' "/proc/$pid/status" 2>/dev/null || continue
		[ "$how" = w ] || {
			grep -q '^lock:.*FLOCK' "/proc/$pid/fdinfo/$fd" 2>/dev/null || continue
			od -An -v -tu8 -w16 "/proc/$pid/auxv" 2>/dev/null | grep -q '^ *23  *1$' && continue
		}
		echo "$pid"
		break
	done | grep -q .
}

# own FILE: make FILE, a lock, one that only root can open. One that others can open is replaced, unless root uses it.
own() {
	[ -d "${1%/*}" ] || (umask 022 && mkdir -p "${1%/*}")
	if private "$1" || { [ -e "$1" ] && in_use "$1"; }; then
		return 0
	fi
	(
		umask 077
		# Those who replace one wait for each other.
		exec 7>>/run/ferry/turn
		flock 7
		private "$1" || [ -d "$1" ] || {
			rm -f "$1.new"
			: >"$1.new" && mv -f "$1.new" "$1"
		}
	)
}

# locked ACTION: perform it, unless another one is under way. ferry's agent takes the same lock and reads who holds it; a job
# of its, which may outlive it, has the other one.
locked() {
	if command -v flock >/dev/null; then
		own /run/ferry/lock
		own /run/ferry/work
		own /run/nixos/switch-to-configuration.lock
		exec 9>>/run/ferry/lock
		exec 8>>/run/ferry/work
		{ flock -n 9 && flock -n 8; } || die "another deployment to this machine is under way"
		# It takes the second one itself.
		flock -u 8
		settle
		flock -n 8 || die "another deployment to this machine is under way"
		printf '{"who":"%s on this machine","since":%s}' nixos-rebuild-switch "$(date +%s)" >/run/ferry/lock
	fi
	perform "$1"
}

# detached DIR ACTION: perform it inside a unit of its own. Everything goes to files, so that nothing depends on a reader.
detached() {
	log=$1/log
	exec >>"$log" 2>&1 </dev/null
	locked_status=0
	# A subshell, since die exits.
	(locked "$2") || locked_status=$?
	printf '%s\n' "$locked_status" >"$1/status.new"
	mv "$1/status.new" "$1/status"
}

# pause: a short sleep; not every sleep knows fractions.
pause() { sleep 0.2 2>/dev/null || sleep 1; }

# follow DIR UNIT: show the log, both streams of it, on stderr until there is a status, and return it.
follow() {
	trap 'say "it goes on in the background: $1/log"; exit 130' INT TERM HUP
	# Each cat goes on where the one before it has stopped, since they share the descriptor.
	exec 3<"$1/log"
	gone=0
	while [ ! -e "$1/status" ] && [ "$gone" -lt 25 ]; do
		cat <&3 >&2
		pause
		systemctl is-active --quiet "$2" || gone=$((gone + 1))
	done
	cat <&3 >&2
	exec 3<&-
	trap - INT TERM HUP
	[ -e "$1/status" ] || die "the unit $2 ended without a result; its log is $1/log"
	read -r status <"$1/status"
	rm -rf "$1"
	return "$status"
}

# supervised ACTION: as a systemd unit, which a lost connection does not end.
supervised() {
	dir=$(mktemp -d /run/ferry-by-hand.XXXXXX) || die "no folder can be made in /run"
	unit=$(basename "$dir" | tr . -).service
	: >"$dir/log"
	keep "$dir/bundle" || die "the bundle is not in this machine's store: $bundle"
	action=$1
	set --
	[ -z "${LOCALE_ARCHIVE-}" ] || set -- "--setenv=LOCALE_ARCHIVE=$LOCALE_ARCHIVE"
	[ -z "${NIXOS_NO_CHECK-}" ] || set -- "$@" "--setenv=NIXOS_NO_CHECK=$NIXOS_NO_CHECK"
	systemd-run --quiet --unit="$unit" --description="switch to $toplevel" "$@" "$self" --detached "$dir" "$action" ||
		die "systemd-run failed"
	follow "$dir" "$unit"
}

# direct ACTION: without systemd.
direct() {
	dir=$(mktemp -d) || die "no temporary folder can be made"
	trap 'rm -rf "$dir"' EXIT
	trap 'exit 130' INT TERM HUP
	keep "$dir/bundle" || die "the bundle is not in this machine's store: $bundle"
	locked "$1"
}

# not_nixos: the test that switch-to-configuration itself makes.
not_nixos() {
	[ ! -e /etc/NIXOS ] && ! grep -q '^ID="\{0,1\}nixos"\{0,1\}$' /etc/os-release 2>/dev/null
}

main() {
	case ${1-} in
	--detached)
		detached "$2" "$3"
		exit 0
		;;
	-h | --help)
		usage
		exit 0
		;;
	'') set -- switch ;;
	esac
	if [ $# -ne 1 ]; then
		usage >&2
		exit 10
	fi
	case $1 in
	switch | boot | test | dry-activate) ;;
	*)
		say "error: unknown action: $1"
		usage >&2
		exit 10
		;;
	esac
	[ "$(id -u)" -eq 0 ] || die "only root can do this: sudo $self $1"
	not_nixos && die "this machine does not run NixOS"
	if [ "$1" != dry-activate ] && [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
		supervised "$1"
	else
		direct "$1"
	fi
}

main "$@"
