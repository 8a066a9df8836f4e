# The toplevel: one folder that has everything of a system, shaped like NixOS's.
{ config, lib, pkgs, ... }:

let
  cfg = config.system;

  failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);

  checked = value:
    if failed != [ ] then throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (message: "- ${message}") failed}"
    else builtins.foldl' (v: warning: lib.warn warning v) value config.warnings;

  init = pkgs.fillIn ./init.sh {
    shell = pkgs.runtimeShell;
    path = "${pkgs.busybox}/bin";
    postBootCommands = pkgs.writeText "local-cmds" config.boot.postBootCommands;
  };

  toplevel = pkgs.stdenv.mkDerivation {
    name = "nixos-system-${cfg.name}-${cfg.nixos.label}";
    inherit init;
    inherit (cfg.build) activate dryActivate switchToConfiguration preSwitchChecks;
    passAsFile = [ "init" "activate" "dryActivate" "switchToConfiguration" "preSwitchChecks" ];
    extraDependencies = cfg.extraDependencies;
    buildCommand = ''
      mkdir -p $out/bin $out/specialisation
      script() { # file with @out@, place
        sed "s,@out@,$out,g" "$1" >"$out/$2"
        chmod +x "$out/$2"
      }
      script "$activatePath" activate
      script "$dryActivatePath" dry-activate
      script "$initPath" init
      script "$switchToConfigurationPath" bin/switch-to-configuration
      script "$preSwitchChecksPath" pre-switch-checks
      cd $out
      ln -s ${cfg.build.etc}/etc etc
      ln -s ${cfg.path} sw
      ln -s ${pkgs.systemd} systemd
      echo ${lib.escapeShellArg (toString config.boot.kernelParams)} >kernel-params
      echo ${lib.escapeShellArg cfg.build.switchInhibitors} >switch-inhibitors
      printf %s ${lib.escapeShellArg cfg.initInterfaceVersion} >init-interface-version
      printf %s ${lib.escapeShellArg cfg.nixos.label} >nixos-version
      printf %s ${pkgs.stdenv.hostPlatform.system} >system
      printf '%s\n' $extraDependencies >extra-dependencies
      ${lib.concatStrings (lib.mapAttrsToList (name: variant: "ln -s ${variant} specialisation/${lib.escapeShellArg name}\n")
        cfg.build.specialisations)}
      ${cfg.extraSystemBuilderCmds}
    '';
  };
in
{
  options.boot.postBootCommands = lib.mkOption {
    type = lib.types.lines;
    default = "";
    description = "Commands that run at each boot after the activation, before systemd; nothing goes on until they end.";
  };

  options.system = {
    name = lib.mkOption {
      type = lib.types.str;
      default = if config.networking.hostName == "" then "unnamed" else config.networking.hostName;
      description = "The machine's part of the toplevel's name.";
    };
    extraDependencies = lib.mkOption {
      type = lib.types.listOf lib.types.path;
      default = [ ];
      description = "Store paths that are kept with the system though nothing in it uses them.";
    };
    extraSystemBuilderCmds = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Commands at the end of the toplevel's builder, run in the toplevel.";
    };
    initInterfaceVersion = lib.mkOption {
      type = lib.types.str;
      default = "systemd 2";
      internal = true;
      description = "Systems with different ones cannot be switched between, only booted (status 100).";
    };
  };

  config = {
    system.build.toplevel = checked toplevel;
  };
}
