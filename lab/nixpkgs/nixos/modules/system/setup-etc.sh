#!@shell@
# setup-etc ETC: make /etc hold what the derivation ETC has. /etc/static is a link to ETC/etc, every file is a link into
# /etc/static or, if ETC/copies says so, a copy with a mode and an owner. What this script made is listed in /etc/.clean; of
# that, what the new system does not have is removed. Whatever else is in /etc is left alone, with a warning if the
# system wanted a file there; but what ETC/replaced names is put aside in /etc/.replaced, and put back later.
# shellcheck shell=sh disable=SC3013 # run by busybox, whose test knows -ef
set -eu
etc=$1
list=/etc/.clean
work=/etc/.setup-etc.$$
trap 'rm -f "$work".*' EXIT

# without LIST REMOVED: the lines of LIST that are not in REMOVED.
without() {
	if [ -s "$2" ]; then grep -vxF -f "$2" "$1" || true; else cat "$1"; fi
}

# folder TARGET: make the folder that it is in.
folder() {
	case $1 in
	*/*) [ -d "/etc/${1%/*}" ] || mkdir -p "/etc/${1%/*}" ;;
	*) ;;
	esac
}

touch "$list"
(cd "$etc/etc" && find . ! -type d) | sed 's,^\./,,' | sort >"$work.all"

# What is there and was not made by an earlier run stays or is put aside. It may be just what the system wants.
found() { # TARGET
	if [ "/etc/$1" -ef "$etc/etc/$1" ]; then
		echo "$1" >>"$work.same"
	elif grep -qxF -- "$1" "$etc/replaced"; then
		aside=/etc/.replaced/$1
		mkdir -p "${aside%/*}"
		mv -f -T "/etc/$1" "$aside"
	else
		echo "$1" >>"$work.kept"
	fi
}
: >"$work.kept"
: >"$work.same"
without "$work.all" "$list" >"$work.fresh"
while read -r target; do
	if [ -L "/etc/$target" ]; then
		[ "$(readlink "/etc/$target")" = "/etc/static/$target" ] || found "$target"
	elif [ -e "/etc/$target" ]; then
		found "$target"
	fi
done <"$work.fresh"
while read -r target; do
	echo "warning: /etc/$target was not made by this system and is left alone" >&2
done <"$work.kept"
cat "$work.same" >>"$work.kept"
without "$work.all" "$work.kept" >"$work.new"

# Until the end the list has the old and the new: an interrupted run leaves nothing that nobody owns.
sort -u "$list" "$work.new" >"$work.both"
cp "$list" "$work.old"
mv -f "$work.both" "$list"

ln -s "$etc/etc" "$work.static"
mv -f -T "$work.static" /etc/static

: >"$work.copied"
while read -r mode owner target; do
	if [ -z "$target" ] || grep -qxF -- "$target" "$work.kept"; then continue; fi
	echo "$target" >>"$work.copied"
	folder "$target"
	cp "/etc/static/$target" "$work.copy"
	chown "$owner" "$work.copy"
	chmod "$mode" "$work.copy"
	mv -f -T "$work.copy" "/etc/$target"
done <"$etc/copies"

without "$work.new" "$work.copied" >"$work.links"
while read -r target; do
	[ ! -L "/etc/$target" ] || continue
	folder "$target"
	rm -f "/etc/$target"
	ln -s "/etc/static/$target" "/etc/$target"
done <"$work.links"

without "$work.old" "$work.new" >"$work.stale"
while read -r target; do
	rm -f "/etc/$target"
	if [ -e "/etc/.replaced/$target" ] || [ -L "/etc/.replaced/$target" ]; then
		mv -f -T "/etc/.replaced/$target" "/etc/$target"
	fi
done <"$work.stale"
mv -f "$work.new" "$list"
