#!/bin/sh
# What firmware, boot loader and initial ramdisk are on a real machine, as the first program of a lab's:
#   machine boot     becomes the system that the boot loader is to boot, or without one the machine's own systemd
#   machine light    activates that system and becomes sshd, beside the Nix daemon: a machine without systemd
#   machine default  prints the toplevel that is booted when nothing is to be tried once
# There are three boot loaders, of which the firmware takes the first that is installed: one like systemd-boot, one like
# GRUB, and /boot/default, which names a toplevel. What firmware remembers is in /etc/lab/efivars.
set -u
variables=/etc/lab/efivars
loader=/boot/loader
grub=/boot/grub

# init_of FILE: the toplevel that a line of kernel parameters in it names.
init_of() {
	sed -n 's|.*init=\([^ ]*\)/init .*|\1|p' "$1" | head -n 1
}

# present ENTRY...: print the first of these entries of systemd-boot that there is, or the newest of all.
present() {
	for entry; do
		if [ -n "$entry" ] && [ -e "$loader/entries/$entry" ]; then
			echo "$entry"
			return
		fi
	done
	for file in "$loader"/entries/*.conf; do
		echo "${file##*/}"
	done | sort -t - -k 3 -n | tail -n 1
}

# systemd_boot next|default
systemd_boot() {
	set -- "$1" "$(cat "$variables/LoaderEntryDefault" 2>/dev/null)" "$(sed -n 's/^default //p' "$loader/loader.conf" 2>/dev/null)"
	entry=$(present "$2" "$3")
	if [ "$1" = next ]; then
		entry=$(present "$(cat "$variables/LoaderEntryOneShot" 2>/dev/null)" "$entry")
		rm -f "$variables/LoaderEntryOneShot"
		mkdir -p "$variables"
		echo "$entry" >"$variables/LoaderEntrySelected"
		# Firmware does not forget what it has done.
		sync "$variables"
	fi
	init_of "$loader/entries/$entry"
}

# grub_menu: print the menu's entries, one a line: number or numbers, title or titles, toplevel.
grub_menu() {
	awk -F '"' '
		/^submenu / { outer = n++; inner = 0; title = $2; next }
		/^menuentry / && title != "" { place = outer ">" inner++; name = title ">" $2 }
		/^menuentry / && title == "" { place = n++; name = $2 }
		/^menuentry / { within = 1 }
		/ init=/ { sub(/.* init=/, ""); sub(/\/init .*/, ""); print place "|" name "|" $0 }
		/^}/ { if (within) within = 0; else title = "" }
	' "$grub/grub.cfg"
}

# forget_next: take from GRUB's environment what is to be booted once. The file's size never changes.
forget_next() {
	{
		grep -v '^next_entry=\|^###' $grub/grubenv
		echo next_entry=
		head -c 1024 /dev/zero | tr '\0' '#'
	} | head -c 1024 >$grub/grubenv.tmp
	sync $grub/grubenv.tmp
	mv -f $grub/grubenv.tmp $grub/grubenv
	sync $grub
}

# grub next|default
grub() {
	entry=
	if [ "$1" = next ] && [ -e $grub/grubenv ]; then
		entry=$(sed -n 's/^next_entry=//p' $grub/grubenv)
		[ -z "$entry" ] || forget_next
	fi
	# What is not in the menu is the first entry for GRUB.
	grub_menu | awk -F '|' -v "entry=${entry:-0}" '
		NR == 1 || $1 == entry || $2 == entry { found = $3 }
		END { print found }'
}

# toplevel next|default: print the system to boot, if there is one. With next, what is to be tried once is tried and forgotten.
toplevel() {
	if [ -e /boot/EFI/systemd/systemd-bootx64.efi ]; then
		systemd_boot "$1"
	elif [ -e $grub/grub.cfg ]; then
		grub "$1"
	elif [ -s /boot/default ]; then
		head -n 1 /boot/default
	fi
}

# lend: give the interface the address that the network has for it.
lend() {
	while read -r interface address gateway; do
		ip link set dev "$interface" up
		ip address replace "$address" dev "$interface"
		ip route replace default via "$gateway" dev "$interface"
	done </etc/lab/lease
}

boot() {
	system=$(toplevel next)
	[ -z "$system" ] || exec "$system/init"
	lend
	exec /lib/systemd/systemd
}

light() {
	mkdir -p /run/sshd
	lend
	system=$(toplevel next)
	if [ -n "$system" ]; then
		ln -sfn "$system" /run/booted-system
		"$system/activate"
	fi
	socket=/nix/var/nix/daemon-socket/socket
	rm -f $socket
	nix-daemon --daemon </dev/null >/var/log/nix-daemon.log 2>&1 &
	until [ -S $socket ] || ! kill -0 $!; do sleep 0.02; done
	# shellcheck source=/dev/null # as the unit of a machine with systemd takes them
	. /etc/default/ssh
	# shellcheck disable=SC2086 # options
	exec /usr/sbin/sshd -D $SSHD_OPTS
}

case $1 in
boot) boot ;;
light) light ;;
default) toplevel default ;;
esac
