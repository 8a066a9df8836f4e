# Builds the bundle of a flake's node out of finished store paths. Runs in bash as the derivation's builder, with set -eu; the
# derivation's attributes are its environment, and long ones files.
# shellcheck shell=sh disable=SC2154
export PATH="$coreutils/bin"
mkdir "$out"
ln -s "$source" "$out/source"
ln -s "$nixpkgs" "$out/nixpkgs"
ln -s "$toplevel" "$out/profile"
while read -r name tree || [ -n "$name" ]; do
	[ -n "$name" ] || continue
	mkdir -p "$out/inputs"
	ln -s "$tree" "$out/inputs/$name"
done <"$inputsPath"
cp "$flakeNixPath" "$out/flake.nix"
cp "$flakeLockPath" "$out/flake.lock"
cp "$defaultNixPath" "$out/default.nix"
cp "$jsonPath" "$out/ferry.json"
{
	printf '#!%s\n' "$shell"
	printf "node='%s'\nbundle='%s'\ntoplevel='%s'\n\n" "$node" "$out" "$toplevel"
	printf '%s' "$switchScript"
} >"$out/nixos-rebuild-switch"
chmod 755 "$out/nixos-rebuild-switch"
