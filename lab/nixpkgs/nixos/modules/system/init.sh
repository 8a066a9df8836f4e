#!@shell@
# init: the first program of a booted system. Activates this system, then becomes the machine's own systemd.
# shellcheck shell=sh
systemConfig=@out@
export PATH=@path@
mkdir -p /run /nix/var/nix/gcroots
ln -sfn "$systemConfig" /run/booted-system
ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
NIXOS_ACTION=boot "$systemConfig/activate"
@shell@ @postBootCommands@
for systemd in /usr/lib/systemd/systemd /lib/systemd/systemd; do
	[ ! -x "$systemd" ] || exec "$systemd" "$@"
done
echo "init: this machine has no systemd" >&2
exit 1
