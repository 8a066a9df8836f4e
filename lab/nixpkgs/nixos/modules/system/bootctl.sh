#!@shell@
# bootctl [OPTION...] COMMAND: of systemd's, what there is to do with a boot menu. Firmware variables are files of the lab.
# shellcheck shell=sh
set -eu
export PATH=@path@
loader=/boot/loader
variables=/etc/lab/efivars

die() {
	echo "$*" >&2
	exit 1
}

variable() { # NAME: its value, or nothing
	cat "$variables/$1" 2>/dev/null || true
}

set_variable() { # NAME VALUE: an empty value takes it away
	[ "$(id -u)" = 0 ] || die "Failed to update EFI variable '$1': Permission denied"
	mkdir -p "$variables"
	if [ -z "$2" ]; then
		rm -f "$variables/$1"
		sync "$variables"
	else
		printf '%s\n' "$2" >"$variables/$1.tmp"
		sync "$variables/$1.tmp"
		mv -f "$variables/$1.tmp" "$variables/$1"
		sync "$variables"
	fi
}

installed() {
	[ -e /boot/EFI/systemd/systemd-bootx64.efi ]
}

# entries: the names of the menu's entries, the newest generation first.
entries() {
	for file in "$loader"/entries/*.conf; do
		[ ! -e "$file" ] || echo "${file##*/}"
	done | sort -r -t - -k 3 -n
}

default() {
	chosen=$(variable LoaderEntryDefault)
	[ -n "$chosen" ] || chosen=$(sed -n 's/^default //p' "$loader/loader.conf" 2>/dev/null) || true
	[ -e "$loader/entries/$chosen" ] || chosen=$(entries | head -n 1)
	printf '%s\n' "$chosen"
}

field() { # ENTRY KEY
	sed -n "s/^$2 *//p" "$loader/entries/$1"
}

title() { # ENTRY: as the menu shows it, where several have the same title
	echo "$(field "$1" title) ($(field "$1" version))"
}

yes_if() { # A B
	if [ "$1" = "$2" ]; then echo true; else echo false; fi
}

list_json() {
	separator=
	printf '['
	for entry in $(entries); do
		printf '%s{"type":"type1","source":"esp","id":"%s","path":"%s","root":"/boot","title":"%s","showTitle":"%s"' \
			"$separator" "$entry" "$loader/entries/$entry" "$(field "$entry" title)" "$(title "$entry")"
		printf ',"sortKey":"%s","version":"%s","machineId":"%s","options":"%s"' \
			"$(field "$entry" sort-key)" "$(field "$entry" version)" "$(field "$entry" machine-id)" "$(field "$entry" options)"
		printf ',"isReported":true,"isDefault":%s,"isSelected":%s}' \
			"$(yes_if "$entry" "$default")" "$(yes_if "$entry" "$(variable LoaderEntrySelected)")"
		separator=,
	done
	printf ']\n'
}

show() { # ENTRY
	marks=
	[ "$1" != "$default" ] || marks="$marks (default)"
	[ "$1" != "$(variable LoaderEntrySelected)" ] || marks="$marks (selected)"
	printf '         type: Boot Loader Specification Type #1 (.conf)\n'
	printf '        title: %s%s\n           id: %s\n       source: %s\n' "$(title "$1")" "$marks" "$1" "$loader/entries/$1"
	printf '     sort-key: %s\n      version: %s\n      options: %s\n' \
		"$(field "$1" sort-key)" "$(field "$1" version)" "$(field "$1" options)"
}

list() {
	echo 'Boot Loader Entries:'
	for entry in $(entries); do
		show "$entry"
		echo
	done
}

status() {
	cat <<-END
		System:
		     Firmware: UEFI 2.70 (ferry-lab 1)
		  Secure Boot: disabled

		Current Boot Loader:
		      Product: systemd-boot 255
		     Features: ✓ Menu timeout control
		               ✓ Default entry control
		               ✓ One-shot entry control
		Current Entry: $(variable LoaderEntrySelected)

		Available Boot Loaders on ESP:
		          ESP: /boot
		         File: └─/EFI/systemd/systemd-bootx64.efi (systemd-boot 255)

		Default Boot Loader Entry:
	END
	[ -z "$default" ] || show "$default"
}

json=off command=
for argument; do
	shift
	case $argument in
	--json=*) json=${argument#--json=} ;;
	--version)
		echo 'systemd 255 (255)'
		exit
		;;
	-p | --print-esp-path | -x | --print-boot-path) command=print ;;
	-*) ;;
	*) set -- "$@" "$argument" ;;
	esac
done
[ -n "$command" ] || {
	command=${1:-status}
	[ $# = 0 ] || shift
}
default=$(default)

case $command in
is-installed) if installed; then echo yes; else
	echo no
	exit 1
fi ;;
print) echo /boot ;;
set-oneshot | set-default)
	[ $# = 1 ] || die 'Too few arguments.'
	case $1 in
	*[!A-Za-z0-9+._-]*) die "Invalid loader entry name: $1" ;;
	*) ;;
	esac
	if [ "$command" = set-oneshot ]; then set_variable LoaderEntryOneShot "$1"; else set_variable LoaderEntryDefault "$1"; fi
	;;
list) if [ "$json" = off ]; then list; else list_json; fi ;;
status) status ;;
*) die "Unknown command verb '$command'." ;;
esac
