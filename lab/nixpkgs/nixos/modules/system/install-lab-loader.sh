#!@shell@
# install-lab-loader TOPLEVEL: write the boot menu from the generations of the system profile, and make TOPLEVEL the default.
# The default is written last and each file appears whole, so that a machine that stops in between boots something.
# shellcheck shell=sh
set -eu
export PATH=@path@
toplevel=$1

replace() { # file, content
	printf '%s\n' "$2" >"$1.tmp"
	mv -f "$1.tmp" "$1"
}

mkdir -p /boot/entries
listed=no
for link in /nix/var/nix/profiles/system-*-link; do
	[ -L "$link" ] || continue
	generation=${link##*/system-}
	generation=${generation%-link}
	system=$(readlink -f "$link") || continue
	replace "/boot/entries/$generation" "$system"
	[ "$system" != "$toplevel" ] || listed=yes
done
for entry in /boot/entries/*; do
	[ -L "/nix/var/nix/profiles/system-${entry##*/}-link" ] || rm -f "$entry"
done
if [ "$listed" = no ]; then
	echo "warning: $toplevel is no generation of the system profile, so the boot menu does not list it" >&2
fi
replace /boot/default "$toplevel"
# The machine boots by one loader.
rm -rf /boot/EFI/systemd /boot/loader /boot/grub
sync -d /boot/default 2>/dev/null || sync
