#!@shell@
# update-users-groups SPEC GROUPS USERS mutable|immutable: make the groups and users in those files, with the distribution's
# own programs, and remove those that an earlier system declared and this one does not. /var/lib/nixos has the names declared
# and, as uid-map, the numbers that users had: who comes back finds their files. SPEC is NixOS's own list of the same.
# shellcheck shell=sh
set -eu
groups_file=$2
users_file=$3
mutable=$4
declared=/var/lib/nixos/declarative
map=/var/lib/nixos/uid-map
mkdir -p /var/lib/nixos
touch "$declared-users" "$declared-groups"
[ -s "$map" ] || echo '{}' >"$map"
result=0

# pairs: the map's, as lines NAME:UID.
pairs() {
	tr -d '{"}\n' <"$map" | tr ',' '\n'
	echo
}

# remember NAME UID: put a pair into the map.
remember() {
	{
		pairs | grep -v "^$1:" | grep . || true
		echo "$1:$2"
	} | sed 's/^\(.*\):/"\1":/' | paste -s -d , - | sed 's/.*/{&}/' >"$map.new"
	mv -f "$map.new" "$map"
}

# A field that is empty must not vanish, hence no white space in IFS.
make_groups() {
	while IFS='|' read -r name gid; do
		! grep -q "^$name:" /etc/group || continue
		if [ -n "$gid" ]; then groupadd -g "$gid" "$name"; else groupadd --system "$name"; fi || result=1
	done <"$groups_file"
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
	if [ -z "$uid" ]; then
		uid=$(pairs | sed -n "s/^$name://p")
		! cut -d : -f 3 /etc/passwd | grep -qxF -- "$uid" || uid=
	fi
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
		remember "$name" "$(id -u "$name")"
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
	done <"$users_file"
}

# remove_undeclared KIND FILE DATABASE PROGRAM...: what was declared earlier and is not in FILE.
remove_undeclared() {
	list=$declared-$1
	file=$2
	database=$3
	shift 3
	cut -d '|' -f 1 "$file" | sort >"$list.new"
	while read -r name; do
		! grep -qxF -- "$name" "$list.new" || continue
		! grep -q "^$name:" "$database" || "$@" "$name" || result=1
	done <"$list"
	mv -f "$list.new" "$list"
}

# remove_people: of those who are no part of the distribution, whom the system does not declare.
remove_people() {
	while IFS=: read -r name _ uid _; do
		if [ "$uid" -lt 1000 ] || [ "$uid" -ge 30000 ] || grep -q "^$name|" "$users_file"; then continue; fi
		remember "$name" "$uid"
		userdel --force "$name" || result=1
	done </etc/passwd
}

make_groups
make_users
remove_undeclared users "$users_file" /etc/passwd userdel --force
remove_undeclared groups "$groups_file" /etc/group groupdel
[ "$mutable" = mutable ] || remove_people
exit "$result"
