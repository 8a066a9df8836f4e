#!/bin/sh
# A full disk of a target:
#   full fill FOLDER       leaves no room on the file system of a folder, and prints how large that was, in kilobytes
#   full free FOLDER SIZE  gives it back
# A folder that shares the machine's root gets a file system of its own for that time, and what it then has on it.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
folder=$2
name=lab-full

mounted() {
	findmnt --noheadings --output "$1" --target "$folder"
}

# column NAME: of what df says of the folder's file system, in kilobytes.
column() {
	df --block-size=1k --output="$1" "$folder" | tail -n 1 | tr -d ' '
}

fill() {
	if [ "$(mounted FSTYPE)" != tmpfs ]; then
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
	# A bind mount shows what is below.
	mount --bind "$(dirname "$folder")" /mnt
	find "/mnt/${folder##*/}" -mindepth 1 -delete
	cp -a "$folder/." "/mnt/${folder##*/}"
	umount /mnt
	# Whoever has a file open there keeps it.
	umount --lazy "$folder"
}

case $1 in
fill) fill ;;
free) free "$3" ;;
esac
