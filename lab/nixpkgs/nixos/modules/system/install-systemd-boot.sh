#!@shell@
# install-systemd-boot TOPLEVEL: write the boot menu as NixOS does for systemd-boot. There is an entry for each generation of the
# system profile, and the default is the one whose system is TOPLEVEL: a TOPLEVEL that is no generation leaves it as it was.
# shellcheck shell=sh
set -eu
export PATH=@path@
toplevel=$1
loader=/boot/loader

# generations: the numbers of those of the system profile.
generations() {
	for link in /nix/var/nix/profiles/system-*-link; do
		link=${link#*/system-}
		[ "$link" = '*-link' ] || echo "${link%-link}"
	done
}

entry() { # ID LINK TITLE GENERATION
	[ -e "$2/init" ] || return 0
	machine=$(head -n 1 /etc/machine-id 2>/dev/null) || machine=
	cat >"$loader/entries/$1.tmp" <<-END
		title $3
		sort-key nixos
		version Generation $4 NixOS $(cat "$2/nixos-version"), built on $(date -d "@$(stat -c %Y "$2")" +%F)
		options init=$(readlink -f "$2")/init $(cat "$2/kernel-params")
		${machine:+machine-id $machine}
	END
	mv -f "$loader/entries/$1.tmp" "$loader/entries/$1"
}

mkdir -p /boot/EFI/systemd "$loader/entries"
default=
# By number, so that of generations with the same system the newest is the default.
for generation in $(generations | sort -n); do
	link=/nix/var/nix/profiles/system-$generation-link
	entry "nixos-generation-$generation.conf" "$link" NixOS "$generation"
	for special in "$link"/specialisation/*; do
		name=${special##*/}
		entry "nixos-generation-$generation-specialisation-$name.conf" "$special" "NixOS ($name)" "$generation"
	done
	[ "$(readlink -f "$link")" != "$toplevel" ] || default=nixos-generation-$generation.conf
done
for file in "$loader"/entries/nixos-generation-*.conf; do
	generation=${file##*/nixos-generation-}
	generation=${generation%.conf}
	[ -L "/nix/var/nix/profiles/system-${generation%%-*}-link" ] || rm -f "$file"
done
if [ -n "$default" ]; then
	printf 'timeout 5\ndefault %s\nconsole-mode keep\n' "$default" >"$loader/loader.conf.tmp"
	mv -f "$loader/loader.conf.tmp" "$loader/loader.conf"
fi
# The file by which bootctl, and this machine's firmware, know that the loader is installed.
[ -e /boot/EFI/systemd/systemd-bootx64.efi ] || echo 'systemd-boot of the lab' >/boot/EFI/systemd/systemd-bootx64.efi
rm -rf /boot/default /boot/entries /boot/grub
# Only this partition's, as NixOS does.
sync -f /boot
