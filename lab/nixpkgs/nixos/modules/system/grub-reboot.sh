#!@shell@
# grub-reboot [--boot-directory=DIR] MENU_ENTRY: boot that entry the next time only. It is a number, a title, or several of
# them with > between, from the menu inwards.
# shellcheck shell=sh
set -eu
directory=/boot
[ $# -gt 0 ] || {
	echo 'Usage: grub-reboot [OPTION] MENU_ENTRY' >&2
	exit 1
}
entry=
for argument; do
	case $argument in
	--boot-directory=*) directory=${argument#*=} ;;
	-*) ;;
	*) entry=$argument ;;
	esac
done
exec @editenv@ "$directory/grub/grubenv" set next_entry="$entry"
