#!@shell@
# update-users-groups SPEC GROUPS USERS mutable|immutable: make the groups and users of the machine what is declared in those
# files, by the rules of NixOS's own program of that name: users.awk has them. SPEC is NixOS's own list of the same.
# shellcheck shell=sh
set -eu
groups_file=$2
users_file=$3
mutable=$4
state=/var/lib/nixos
mkdir -p "$state"
# Not in /tmp, which anybody can fill: the real one makes its files in /etc.
work=$(mktemp -d /run/users.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 700 "$work"

# A password in plain text becomes a hash only for a user who is not there yet.
while IFS='|' read -r name uid group home create shell class hashed initial subordinate description; do
	case $initial in
	plain:*) if ! grep -q "^$name:" /etc/passwd; then initial="=$(mkpasswd -m sha512 "${initial#plain:}")"; fi ;;
	*) ;;
	esac
	case $hashed in
	file:*) if [ -e "${hashed#file:}" ]; then hashed="=$(head -n 1 "${hashed#file:}")"; else
		echo "warning: password file '${hashed#file:}' does not exist" >&2
		hashed=
	fi ;;
	*) ;;
	esac
	printf '%s|' "$name" "$uid" "$group" "$home" "$create" "$shell" "$class" "$hashed" "$initial" "$subordinate"
	printf '%s\n' "$description"
done <"$users_file" >"$work/users"

for file in /etc/passwd /etc/group /etc/shadow /etc/subuid "$state/declarative-users" "$state/declarative-groups" \
	"$state/uid-map" "$state/gid-map" "$state/auto-subuid-map"; do
	if [ -e "$file" ]; then cat "$file"; fi >"$work/old-${file##*/}"
done
awk -v "work=$work" -v "mutable=$mutable" -v "groups_file=$groups_file" -f @rules@

# put FILE MODE: the new one in its place, whole.
put() {
	cp "$work/new-${1##*/}" "$1.new"
	chmod "$2" "$1.new"
	[ "$1" != /etc/shadow ] || chown root:shadow "$1.new"
	mv -f "$1.new" "$1"
}

# sorted NAME: by the numbers in it.
sorted() {
	sort -s -t : -k 3 -n "$work/new-$1" >"$work/sorted"
	mv "$work/sorted" "$work/new-$1"
}

sorted group
sorted passwd
for name in declarative-groups gid-map declarative-users uid-map auto-subuid-map; do put "$state/$name" 644; done
put /etc/group 644
put /etc/passwd 644
put /etc/shadow 640
put /etc/subuid 644
put /etc/subgid 644

while IFS='|' read -r name _ _ home create _; do
	if [ "$create" = yes ] && [ ! -d "$home" ]; then
		mkdir -p "$home"
		cp -r /etc/skel/. "$home"
		chown -R "$(grep "^$name:" /etc/passwd | cut -d : -f 3,4)" "$home"
		chmod 700 "$home"
	fi
done <"$work/users"
