# The configurations of the flake that the bundle of @node@ was made from, for a Nix without flakes and without network:
#
#   nix-build -A '"@attribute@".config.system.build.toplevel'
#   sudo nixos-rebuild switch --file default.nix --attr '"@attribute@"'    (where nixos-rebuild has --file)
#
# What is evaluated is in the store: the flake's source, and those of its inputs that this node needs.
let
  # Calls a flake as Nix does.
  reader =
  @reader@;
in
(reader {
  # The file refers to store paths, which fromJSON does not admit.
  lock = builtins.fromJSON (builtins.unsafeDiscardStringContext (builtins.readFile ./flake.lock));
  start = @start@;
  source = {
@source@      outPath = builtins.storePath @outPath@;
  };
  dir = @dir@;
  trees = {
@trees@  };
  look = _: path: path;
  subfolders = @subfolders@;
  relativeSources = @relativeSources@;
}).outputs.nixosConfigurations
