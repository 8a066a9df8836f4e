# The bundle of the node @node@, without ferry. In this folder:
#
#   nix-build                                       builds it: ./result is the same store path as ferry's
#   sudo ./result/nixos-rebuild-switch switch       switches this machine to it
#   nix-copy-closure --to root@HOST ./result        brings it to another one, where the same command switches
#
# `source` is a copy of what it was made from, yours to edit. To build from another nixpkgs, change `nixpkgs` here, to
# fetchTarball { url = "…"; sha256 = "…"; } for example.
{
  source ? builtins.path {
    path = ./source;
    name = "source";
  },
  nixpkgs ? @nixpkgs@,
  # Below the source.
  configuration ? @configuration@,
  system ? @system@,
}:
let
  inherit (builtins)
    attrNames
    concatStringsSep
    readFile
    toJSON
    unsafeDiscardStringContext
    ;

  # Plain NixOS gets paths without string context from its search path.
  plainPath = string: /. + unsafeDiscardStringContext string;
  nixos = import (plainPath "${nixpkgs}/nixos/default.nix") {
    configuration = plainPath "${source}/${configuration}";
    inherit system;
  };
  inherit (nixos) config;
  toplevel = nixos.system;
  pkgs = nixos.pkgs or config._module.args.pkgs;
  tools = pkgs.buildPackages or pkgs;

  # ferry.json, which says what the bundle is.
  manifest = {
    node = @nodeString@;
    format = 1;
    ferryVersion = @ferryVersion@;
    # Of git: what the source was based on, and whether files differed from that.
    revision = @revision@;
    dirty = @dirty@;
    inherit system source nixpkgs;
    configuration = "${source}/${configuration}";
    nixpkgsVersion =
      config.system.nixos.version
        or (config.system.nixosVersion or (pkgs.lib.version or pkgs.lib.nixpkgsVersion));
    profile = toplevel.outPath;
  };
  line = name: "  ${toJSON name}: ${toJSON manifest.${name}}";
in
derivation {
  name = "ferry-${manifest.node}";
  inherit (tools.bash) system;
  builder = "${tools.bash}/bin/sh";
  args = [
    "-euc"
    (readFile ./build-bundle.sh)
  ];
  preferLocalBuild = true;
  allowSubstitutes = false;
  switchScript = readFile ./nixos-rebuild-switch.sh;
  json = "{\n" + concatStringsSep ",\n" (map line (attrNames manifest)) + "\n}\n";
  shell = "${pkgs.bash}/bin/sh";
  inherit source toplevel nixpkgs;
  inherit (manifest) configuration node;
  inherit (tools) coreutils;
}
