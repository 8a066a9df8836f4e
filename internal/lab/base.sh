# Makes one base root: base.sh SUITE ROOT [MIRROR]. Runs as root in mount and pid namespaces of its own, so that
# nothing it mounts or starts outlives it.
set -eu
suite=$1 root=$2 mirror=${3-}

# A proxy that the host's apt is told to use is the only way out on some networks.
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
export http_proxy="${http_proxy-}" https_proxy="${https_proxy-}"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

# shellcheck disable=SC2086 # no mirror means no argument at all: debootstrap then takes its own default
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" $mirror

cat >"$root/etc/dpkg/dpkg.cfg.d/ferry-lab" <<'EOF'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
EOF
cat >"$root/etc/apt/apt.conf.d/ferry-lab" <<'EOF'
APT::Install-Recommends "false";
Acquire::Languages "none";
EOF
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

# Not in debootstrap's own list: it configures nix-bin's perl packages in an order that fails.
mount -t proc proc "$root/proc"
chroot "$root" apt-get install --yes --quiet \
	systemd systemd-sysv libpam-systemd dbus dbus-user-session openssh-server openssh-client sudo opendoas iproute2 procps git zsh fish \
	nix-bin nix-setup-systemd busybox-static rsync
# A machine's first two Nix processes would otherwise make the database at once, and one may read what the other has begun.
chroot "$root" nix-store --init
umount "$root/proc"

# What must differ from target to target, and what only costs space or time at boot.
rm -rf "$root/usr/sbin/policy-rc.d" "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/var/lib/dbus/machine-id" \
	"$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
: >"$root/etc/machine-id"
# A switch starts the targets that it finds here, and by them all that is new. NixOS has systemd's own here.
for target in "$root"/usr/lib/systemd/system/*.target; do
	case ${target##*/} in
	basic.* | local-fs.* | multi-user.* | network.* | network-online.* | network-pre.* | nss-*lookup.* | paths.* | remote-fs.* | \
		slices.* | sockets.* | swap.* | sysinit.* | time-sync.* | timers.*) cp "$target" "$root/etc/systemd/system/" ;;
	*) ;;
	esac
done
# Below /etc, whose units are the system's that the machine is switched to.
mkdir -p "$root/usr/local/lib/systemd/system"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer man-db.timer \
	systemd-tmpfiles-clean.timer getty.target console-getty.service systemd-networkd.service systemd-resolved.service; do
	ln -sf /dev/null "$root/usr/local/lib/systemd/system/$unit"
done
mkdir -p "$root/var/log/journal" "$root/nix/store"
