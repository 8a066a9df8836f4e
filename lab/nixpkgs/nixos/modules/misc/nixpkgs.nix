# Which packages the system is made of, and for which platform.
{ config, options, lib, ... }:

let
  cfg = config.nixpkgs;
  opt = options.nixpkgs;

  platform = lib.types.either lib.types.str lib.types.attrs;

  platforms =
    if opt.hostPlatform.isDefined then
      { localSystem = cfg.buildPlatform; }
      // lib.optionalAttrs (!lib.systems.equals cfg.buildPlatform cfg.hostPlatform) { crossSystem = cfg.hostPlatform; }
    else { inherit (cfg) localSystem crossSystem; };

  pkgs =
    if opt.pkgs.isDefined then cfg.pkgs.appendOverlays cfg.overlays
    else import ../../.. ({ inherit (cfg) config overlays; } // platforms);

  legacy = lib.optional (opt.system.highestPrio < 1000) opt.system
    ++ lib.optional (opt.localSystem.highestPrio < 1000) opt.localSystem
    ++ lib.optional (opt.crossSystem.highestPrio < 1000) opt.crossSystem;
in
{
  options.nixpkgs = {
    pkgs = lib.mkOption {
      type = lib.types.pkgs;
      description = "The package set, instead of one made from the other options here.";
    };
    config = lib.mkOption {
      type = lib.types.attrs;
      default = { };
      description = "The `config` argument of nixpkgs.";
    };
    overlays = lib.mkOption {
      type = lib.types.listOf lib.types.raw;
      default = [ ];
      description = "Functions final: previous: { … } that change packages.";
    };
    hostPlatform = lib.mkOption {
      type = platform;
      example = "aarch64-linux";
      apply = lib.systems.elaborate;
      description = "The platform that the system runs on.";
    };
    buildPlatform = lib.mkOption {
      type = platform;
      default = cfg.hostPlatform;
      example = "x86_64-linux";
      apply = lib.systems.elaborate;
      description = "The platform that the system is built on; another one than hostPlatform is cross compilation.";
    };
    system = lib.mkOption {
      type = lib.types.str;
      description = "The platform, where hostPlatform is not set. Comes from the `system` argument.";
    };
    localSystem = lib.mkOption {
      type = lib.types.attrs;
      default = { inherit (cfg) system; };
      description = "The older name of buildPlatform.";
    };
    crossSystem = lib.mkOption {
      type = lib.types.nullOr lib.types.attrs;
      default = null;
      description = "The older name of hostPlatform.";
    };
  };

  config = {
    _module.args.pkgs = pkgs;
    assertions = [
      {
        assertion = opt.hostPlatform.isDefined -> legacy == [ ];
        message = "Your system configures nixpkgs.hostPlatform and also the legacy options ${toString legacy}.";
      }
    ];
  };
}
