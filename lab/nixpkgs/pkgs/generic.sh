# Builds a package that has no buildCommand: unpack `src`, then patchPhase, buildPhase and installPhase where they are given.
# shellcheck shell=sh disable=SC2154 # the attributes of the derivation are the variables here
set -e
if [ -n "${src:-}" ]; then
	if [ -d "$src" ]; then
		cp -r "$src" source
		chmod -R u+w source
		cd source
	else
		case $src in
		*.tar | *.tar.* | *.tgz)
			tar xf "$src"
			cd ./*/
			;;
		*) ;;
		esac
	fi
fi
eval "${patchPhase:-}"
eval "${buildPhase:-}"
eval "${installPhase:-mkdir -p \"\$out\"}"
