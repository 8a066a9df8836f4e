#!@shell@
# users-groups groups FILE | users FILE mutable|immutable: make the groups or users in FILE, with the distribution's own
# programs, and remove those that an earlier system declared and this one does not. /var/lib/nixos has the names declared.
# shellcheck shell=sh
set -eu
kind=$1
file=$2
mutable=${3:-}
declared=/var/lib/nixos/declarative-$kind
mkdir -p /var/lib/nixos
touch "$declared"
result=0

# A field that is empty must not vanish, hence no white space in IFS.
make_groups() {
	while IFS='|' read -r name gid; do
		! grep -q "^$name:" /etc/group || continue
		if [ -n "$gid" ]; then groupadd -g "$gid" "$name"; else groupadd --system "$name"; fi || result=1
	done <"$file"
}

password_for() { # NAME HASH-OR-PLAIN
	case $2 in
	'') ;;
	plain:*) printf '%s:%s\n' "$1" "${2#plain:}" | /usr/sbin/chpasswd ;;
	*) printf '%s:%s\n' "$1" "$2" | /usr/sbin/chpasswd -e ;;
	esac
}

make_user() {
	set -- --no-create-home --home-dir "$home" --gid "$group" --comment "$description" "$name"
	[ -z "$uid" ] || set -- --uid "$uid" "$@"
	if [ -n "$shell" ]; then
		set -- --shell "$shell" "$@"
	elif [ "$class" = normal ]; then
		set -- --shell /bin/bash "$@"
	else
		set -- --shell /usr/sbin/nologin "$@"
	fi
	[ "$class" = normal ] || set -- --system "$@"
	useradd "$@"
	password_for "$name" "$password"
}

# Bring a user that is there to what is declared: shell and, for users that are not mutable, the password.
change_user() { # its line in /etc/passwd
	has=${1##*:}
	if [ -n "$shell" ] && [ "$shell" != "$has" ]; then usermod --shell "$shell" "$name"; fi
	[ "$mutable" = mutable ] || password_for "$name" "$password"
	number=${1#*:*:}
	number=${number%%:*}
	if [ -n "$uid" ] && [ "$uid" != "$number" ]; then
		echo "warning: user $name has the number $number and keeps it, not $uid" >&2
	fi
}

make_users() {
	while IFS='|' read -r name uid group groups home create shell class password description; do
		there=$(grep "^$name:" /etc/passwd || true)
		if [ -z "$there" ]; then make_user; else change_user "$there"; fi || {
			result=1
			continue
		}
		if [ "$create" = yes ] && [ ! -d "$home" ]; then
			mkdir -p "$home"
			cp -r /etc/skel/. "$home"
			chown -R "$name:$group" "$home"
			chmod 700 "$home"
		fi
		member=" $(id -Gn "$name" 2>/dev/null) "
		for wanted in $(echo "$groups" | tr ',' ' '); do
			case $member in
			*" $wanted "*) ;;
			*) usermod --append --groups "$wanted" "$name" || result=1 ;;
			esac
		done
	done <"$file"
}

remove() { # NAME
	case $kind in
	groups) ! grep -q "^$1:" /etc/group || groupdel "$1" || result=1 ;;
	*) ! grep -q "^$1:" /etc/passwd || userdel --force "$1" 2>/dev/null || result=1 ;;
	esac
}

case $kind in
groups) make_groups ;;
*) make_users ;;
esac

cut -d '|' -f 1 "$file" | sort >"$declared.new"
gone=$(grep -vxF -f "$declared.new" "$declared" || true)
for name in $gone; do remove "$name"; done
mv -f "$declared.new" "$declared"
exit "$result"
