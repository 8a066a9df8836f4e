#!@shell@
# switch-to-configuration check|switch|boot|test|dry-activate: make this system the one that runs, or the one that is booted.
#
# Status: 0 done; 1 refused, nothing changed (but the boot loader may have been written); 2 an activation snippet failed;
# 3 systemd could not reload or tmpfiles failed; 4 units failed; 100 only a reboot can do it.
# shellcheck shell=sh disable=SC3013 # run by busybox, whose test knows -ef
out=@out@
export PATH=@path@:/usr/sbin:/usr/bin:/sbin:/bin
action=${1:-}
state=/run/nixos
old=/run/current-system/etc/systemd/system
new=$out/etc/systemd/system
newline='
'

say() {
	echo "$*" >&2
}

die() {
	say "$*"
	exit 1
}

# fault PHASE: what the option system.switch.fault asks for.
fault() {
	[ "$1" = "@faultPhase@" ] || return 0
	# shellcheck disable=SC2043 # the list is filled in
	for affected in @faultActions@; do
		[ "$affected" != "$action" ] || strike "$1"
	done
}

strike() {
	deaf=@faultDeaf@
	if [ -n "$deaf" ]; then
		trap '' TERM INT HUP
		# In a session of its own, and a child of nobody here.
		(setsid sleep @faultSleep@ 9>&- &)
	fi
	sleep @faultSleep@ 9>&-
	code=@faultExit@
	if [ -n "$code" ]; then
		say "fault: exit $code before $1"
		exit "$code"
	fi
}

# Lists of units are lines of text.
add() { # LIST UNIT: to the variable LIST, once
	eval "present=\${$1}"
	# shellcheck disable=SC2154 # set by eval
	has "$present" "$2" || eval "$1=\$present\$2\$newline"
}

has() { # LIST-TEXT UNIT
	case "$newline$1" in *"$newline$2$newline"*) return 0 ;; *) return 1 ;; esac
}

tell() { # MESSAGE LIST-TEXT: as one line, if there are any
	[ -z "$2" ] || say "$1: $(printf %s "$2" | sort | tr '\n' ',' | sed 's/,$//; s/,/, /g')"
}

systemctl_on() { # LIST-TEXT ARG...
	[ -n "$1" ] || return 0
	units=$1
	shift
	saved=$IFS
	IFS=$newline
	set -f
	# shellcheck disable=SC2086 # one word a line
	set -- "$@" -- $units
	set +f
	IFS=$saved
	systemctl "$@"
}

# remember LIST-FILE LIST-TEXT: pending work, so that a run after an interrupted one does it.
remember() {
	[ "$action" = dry-activate ] || printf %s "$2" >"$state/$1"
}

# The names of the units in a folder: those with a file, and those with only a drop-in. Templates have no state.
units_in() {
	for file in "$1"/*; do
		name=${file##*/}
		name=${name%.d}
		case $name in
		*@.*) ;;
		*.service | *.socket | *.timer | *.path | *.target | *.mount | *.automount | *.slice) echo "$name" ;;
		*) ;;
		esac
	done
}

is_masked() { # FOLDER UNIT
	[ "$1/$2" -ef /dev/null ]
}

is_full() { # FOLDER UNIT: more than a drop-in
	[ -e "$1/$2" ]
}

# What matters in a unit: everything but its description, and but the triggers when `reload` is asked.
content() { # FOLDER UNIT [reload]
	cat "$1/$2" "$1/$2.d"/*.conf 2>/dev/null |
		sed "/^Description=/d; /^Documentation=/d; ${3:+/^X-Reload-Triggers=/d}"
}

is_same() { # UNIT [reload]
	if [ "$old/$1" -ef "$new/$1" ] && [ ! -e "$old/$1.d" ] && [ ! -e "$new/$1.d" ]; then return 0; fi
	[ "$(content "$old" "$@")" = "$(content "$new" "$@")" ]
}

setting() { # UNIT LINE: whether the new unit has it
	content "$new" "$1" | grep -qxF -- "$2"
}

# The units that active targets of the new system start.
wanted_units() {
	for folder in "$new"/*.wants "$new"/*.requires; do
		[ -d "$folder" ] || continue
		target=${folder##*/}
		target=${target%.*}
		systemctl --quiet is-active "$target" || continue
		for file in "$folder"/*; do
			[ ! -L "$file" ] || echo "${file##*/}"
		done
	done
}

active_of() { # LIST-TEXT: those of them that run or are about to
	[ -n "$1" ] || return 0
	states=$(systemctl_on "$1" is-active)
	printf %s "$1" | while read -r unit && read -r unit_state <&3; do
		case $unit_state in active | activating | reloading) echo "$unit" ;; *) ;; esac
	done 3<<-END
		$states
	END
}

failed_of() { # LIST-TEXT: those of them that have failed, or that systemd starts again and again
	{
		systemctl_on "$1" show --property=Id --property=ActiveState --property=SubState --property=ExecMainStatus
		echo
	} | {
		unit='' active='' sub='' status=''
		while IFS='=' read -r key value; do
			case $key in
			Id) unit=$value ;;
			ActiveState) active=$value ;;
			SubState) sub=$value ;;
			ExecMainStatus) status=$value ;;
			*)
				if [ "$active" = failed ] || { [ "$sub" = auto-restart ] && [ "$status" != 0 ]; }; then
					echo "$unit"
				fi
				unit='' active='' sub='' status=''
				;;
			esac
		done
	}
}

# Sort every unit of the old and the new system into the lists of what must happen to it.
compare() {
	all=$({
		units_in "$old"
		units_in "$new"
	} | sort -u)
	all=${all:+$all$newline}
	running=$(active_of "$all")
	running=${running:+$running$newline}
	while read -r unit; do
		[ -n "$unit" ] || continue
		has "$running" "$unit" || continue
		if is_masked "$new" "$unit"; then
			add stop "$unit"
		elif is_full "$old" "$unit" && ! is_full "$new" "$unit" && [ ! -d "$new/$unit.d" ]; then
			grep -qxF X-StopOnRemoval=false "$old/$unit" || add stop "$unit"
		elif ! is_same "$unit"; then
			compare_changed "$unit"
		fi
	done <<-END
		$all
	END
	for pending in start restart reload; do
		[ -e "$state/$pending-list" ] || continue
		while read -r unit; do
			if is_full "$new" "$unit" && ! is_masked "$new" "$unit"; then add "$pending" "$unit"; fi
		done <"$state/$pending-list"
	done
}

compare_changed() {
	unit=$1
	case $unit in
	*.target | *.slice) ;;
	*.mount | *.automount) add reload "$unit" ;;
	*.service)
		if setting "$unit" X-ReloadIfChanged=true || is_same "$unit" reload; then
			add reload "$unit"
		elif setting "$unit" X-RestartIfChanged=false || setting "$unit" RefuseManualStop=true; then
			add skip "$unit"
		elif setting "$unit" X-StopIfChanged=false; then
			add restart "$unit"
		else
			add stop "$unit"
			socket=${unit%.service}.socket
			if has "$running" "$socket" && is_full "$new" "$socket"; then
				# The socket starts the service when somebody comes.
				add stop "$socket"
				add start "$socket"
			else
				add start "$unit"
			fi
		fi
		;;
	*)
		add stop "$unit"
		add start "$unit"
		;;
	esac
}

switch_units() {
	systemctl reset-failed
	systemctl daemon-reload || result=3
	if [ -e "$out/etc/tmpfiles.d/nixos.conf" ]; then
		systemd-tmpfiles --create --remove --exclude-prefix=/dev "$out/etc/tmpfiles.d/nixos.conf" || result=3
	fi

	tell "reloading the following units" "$reload"
	systemctl_on "$reload" reload-or-restart || result=4
	rm -f "$state/reload-list"
	tell "restarting the following units" "$restart"
	systemctl_on "$restart" restart || result=4
	rm -f "$state/restart-list"
	tell "starting the following units" "$start"
	systemctl_on "$start" start || result=4
	rm -f "$state/start-list"

	wanted=
	for unit in $(wanted_units); do
		has "$start$restart" "$unit" || add wanted "$unit"
	done
	before=$(active_of "$wanted")
	fresh=
	for unit in $wanted; do
		has "$before$newline" "$unit" || add fresh "$unit"
	done
	systemctl_on "$fresh" start || result=4

	# A program that dies at once has done so after this.
	[ -z "$start$restart$fresh" ] || sleep 0.2
	now=$(active_of "$fresh")
	tell "the following new units were started" "${now:+$now$newline}"

	failed=$(failed_of "$({
		units_in "$new"
		printf %s "$fresh"
	} | sort -u)$newline")
	if [ -n "$failed" ]; then
		tell "warning: the following units failed" "$failed$newline"
		systemctl_on "$failed$newline" --no-pager --full status >&2
		result=4
	fi
}

case $action in
check | switch | boot | test | dry-activate) ;;
*)
	die "Usage: $0 [check|switch|boot|test|dry-activate]

check:        run pre-switch checks and exit
switch:       make the configuration the boot default and activate now
boot:         make the configuration the boot default
test:         activate the configuration, but don't make it the boot default
dry-activate: show what would be done if this configuration were activated"
	;;
esac
[ "$(id -u)" = 0 ] || die "switch-to-configuration: only root can do this"
[ -e /etc/NIXOS ] || grep -qx ID=nixos /etc/os-release 2>/dev/null || die "This is not a NixOS installation!"

export NIXOS_ACTION="$action"
mkdir -p "$state"
exec 9>"$state/switch-to-configuration.lock" || exit 1
flock --nonblock 9 || {
	say "Could not acquire lock"
	exit 11
}

fault check
if [ "${NIXOS_NO_CHECK:-}" != 1 ]; then
	"$out/pre-switch-checks" "$out" "$action" 9>&- || die "Pre-switch checks failed"
fi
[ "$action" != check ] || exit 0

case $action in
switch | boot)
	fault boot
	@installBootLoader@ "$out" 9>&- || die "Failed to install bootloader"
	;;
*) ;;
esac
[ "$action" != boot ] || exit 0

for running in /run/current-system /run/booted-system; do
	[ -e "$running/init-interface-version" ] || continue
	cmp -s "$running/init-interface-version" "$out/init-interface-version" && break
	say "Warning: the new NixOS configuration has an 'init' that is incompatible with the current configuration. The new"
	say "configuration won't take effect until you reboot the system."
	exit 100
done

stop='' start='' restart='' reload='' skip=''
systemd=no
if [ -d /run/systemd/system ]; then
	systemd=yes
	compare
else
	say "warning: systemd does not run here, units are left as they are"
fi

if [ "$action" = dry-activate ]; then
	fault activate
	tell "would stop the following units" "$stop"
	tell "would NOT stop the following changed units" "$skip"
	say "would activate the configuration..."
	"$out/dry-activate" "$out" 9>&-
	fault units
	tell "would reload the following units" "$reload"
	tell "would restart the following units" "$restart"
	tell "would start the following units" "$start"
	fault end
	exit 0
fi

result=0
remember start-list "$start"
remember restart-list "$restart"
remember reload-list "$reload"
tell "stopping the following units" "$stop"
systemctl_on "$stop" stop
tell "NOT restarting the following changed units" "$skip"

fault activate
say "activating the configuration..."
"$out/activate" "$out" 9>&- || result=2
fault units
[ "$systemd" = no ] || switch_units
fault end

if [ "$result" -eq 0 ]; then
	logger -t nixos "finished switching to system configuration $out" 2>/dev/null
else
	logger -t nixos "switching to system configuration $out failed (status $result)" 2>/dev/null
fi
exit "$result"
