# A NixOS module for the machine that builds and deploys. Targets need nothing of it: ferry brings what it runs there.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.programs.ferry;
in
{
  options.programs.ferry = {
    enable = lib.mkEnableOption "ferry, which deploys NixOS to other machines";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The ferry to install.";
    };

    emulatedSystems = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "aarch64-linux" ];
      description = ''
        Platforms of targets whose programs this machine runs by emulation when it builds for them. It need not name those that a
        remote builder builds for.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    boot.binfmt.emulatedSystems = cfg.emulatedSystems;
  };
}
