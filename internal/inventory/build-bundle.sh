# Builds a bundle out of finished store paths. Runs in bash as the derivation's builder, with set -eu; the derivation's
# attributes are its environment.
# shellcheck shell=sh disable=SC2154
export PATH="$coreutils/bin"
mkdir "$out"
ln -s "$source" "$out/source"
ln -s "$nixpkgs" "$out/nixpkgs"
ln -s "$configuration" "$out/configuration.nix"
ln -s "$toplevel" "$out/profile"
printf '%s' "$json" >"$out/ferry.json"
{
  printf '#!%s\n' "$shell"
  printf "node='%s'\nbundle='%s'\ntoplevel='%s'\n\n" "$node" "$out" "$toplevel"
  printf '%s' "$switchScript"
} >"$out/nixos-rebuild-switch"
chmod 755 "$out/nixos-rebuild-switch"
