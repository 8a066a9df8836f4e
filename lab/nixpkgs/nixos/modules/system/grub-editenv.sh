#!@shell@
# grub-editenv FILE create|list|set NAME=VALUE...|unset NAME...: as GRUB's. The file has 1024 bytes, whatever is in it.
# shellcheck shell=sh
set -eu
export PATH=@path@
header='# GRUB Environment Block'
file=${1:--}
command=${2:-}
[ $# -ge 2 ] || {
	echo 'Usage: grub-editenv [OPTION...] FILENAME COMMAND' >&2
	exit 1
}
shift 2
[ "$file" != - ] || file=/boot/grub/grubenv

list() {
	[ ! -e "$file" ] || grep -v '^#' "$file" || true
}

write() { # the new content is its input, lines NAME=VALUE
	{
		echo "$header"
		cat
		head -c 1024 /dev/zero | tr '\0' '#'
	} | head -c 1024 >"$file.tmp"
	sync "$file.tmp"
	mv -f "$file.tmp" "$file"
	sync "${file%/*}"
}

# without NAME: the lines of all others.
without() {
	list | grep -v "^$1=" || true
}

case $command in
create) : | write ;;
list) list ;;
set)
	for pair; do
		{
			without "${pair%%=*}"
			printf '%s\n' "$pair"
		} | write
	done
	;;
unset)
	for name; do
		without "$name" | write
	done
	;;
*)
	echo "grub-editenv: error: Unknown command \`$command'." >&2
	exit 1
	;;
esac
