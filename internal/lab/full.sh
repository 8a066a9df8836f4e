#!/bin/sh
# A full disk of a target:
#   full fill FOLDER       leaves no room on the file system of a folder, and prints how large that was, in kilobytes
#   full free FOLDER SIZE  gives it back
# A folder that is on no file system in memory gets one of its own for that time, and what it then has on it. Nobody writes to
# either while the one is made of the other: what is written in between would be lost.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
folder=$2
name=lab-full

# mounted COLUMN: what is said of the file system that the folder is on; of several, one over the other, the last counts.
mounted() {
	findmnt --raw --noheadings --output "$1" --target "$folder" | tail -n 1
}

# column NAME: of what df says of the folder's file system, in kilobytes.
column() {
	df --block-size=1k --output="$1" "$folder" | tail -n 1 | tr -d ' '
}

# below: where what is on the folder's own file system can be written while another one is over it.
below=/run/$name-$(echo "${folder#/}" | tr / -)

# hide: what is on the folder's own file system is below, and nobody can write to the folder. It becomes so elsewhere, where nobody
# has a file of it open.
hide() {
	mkdir -p "$below"
	for place in "$below" /mnt; do
		mount --bind "$folder" "$place"
		# Else what is mounted on the folder next is mounted there as well.
		mount --make-private "$place"
	done
	mount -o remount,bind,ro /mnt
	mount --bind /mnt "$folder"
	umount /mnt
}

fill() {
	if [ "$(mounted FSTYPE)" != tmpfs ]; then
		hide
		mount -t tmpfs -o "mode=$(stat -c %a "$folder")" $name /mnt
		cp -a "$folder/." /mnt
		mount --bind /mnt "$folder"
		umount /mnt
	fi
	column size
	# Less than what is used is refused, and that may just have become more; 0 would be no limit.
	tries=0
	until used=$(column used) && mount -o "remount,size=$((used > 4 ? used : 4))k" "$(mounted TARGET)"; do
		tries=$((tries + 1))
		[ $tries -lt 20 ] || exit 1
		sleep 0.1
	done
}

free() {
	mount -o "remount,size=$1k" "$(mounted TARGET)"
	[ "$(mounted SOURCE)" = $name ] || return 0
	# It is refused while somebody has a file open for writing; who does not let go of it in time loses what they write.
	tries=0
	until mount -o remount,ro "$folder" 2>/dev/null || [ $tries -ge 40 ]; do
		tries=$((tries + 1))
		sleep 0.05
	done
	find "$below" -mindepth 1 -delete
	cp -a "$folder/." "$below"
	# Whoever has a file open there keeps it.
	umount --lazy "$folder"
	umount --lazy "$folder"
	umount "$below"
	rmdir "$below"
}

case $1 in
fill) fill ;;
free) free "$3" ;;
esac
