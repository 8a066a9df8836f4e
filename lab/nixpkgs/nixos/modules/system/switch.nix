# Switching a running machine: bin/switch-to-configuration and the checks before it.
{ config, lib, pkgs, ... }:

let
  cfg = config.system;

  checks = lib.concatStrings (lib.mapAttrsToList
    (name: text: ''
      (
      set -e
      ${text}
      ) || failed ${lib.escapeShellArg name}
    '')
    cfg.preSwitchChecks);

  switchProgram = "${pkgs.switch-to-configuration-ng}/bin/switch-to-configuration";

  # What the switch program has from its wrapper: the names are NixOS's, but for RULES and FAULT_*. Only today's is told of checks.
  environment = {
    OUT = "@out@";
    TOPLEVEL = "@out@";
    DISTRO_ID = "nixos";
    INSTALL_BOOTLOADER = "${cfg.build.installBootLoader}";
    SYSTEMD = "${pkgs.systemd}";
    RULES = cfg.switch.rules;
    PATH = "${pkgs.busybox}/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  } // lib.optionalAttrs (cfg.switch.rules == "2026") {
    PRE_SWITCH_CHECK = "@out@/pre-switch-checks";
  } // lib.optionalAttrs (cfg.switch.fault != null) {
    FAULT_PHASE = cfg.switch.fault.phase;
    FAULT_SLEEP = toString cfg.switch.fault.sleep;
    FAULT_EXIT = if cfg.switch.fault.exitCode == null then "" else toString cfg.switch.fault.exitCode;
    FAULT_DEAF = lib.optionalString cfg.switch.fault.deaf "1";
    FAULT_ACTIONS = toString cfg.switch.fault.actions;
  };
in
{
  options.system = {
    preSwitchChecks = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = { failsEveryTime = "false"; };
      description = "Snippets of sh that must succeed before anything is changed. $1 is the toplevel, $2 the action.";
    };

    switch.inhibitors = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = lib.literalExpression "{ dbus = \"\${pkgs.dbus}\"; }";
      description = ''
        By name, what must not change while the machine runs. A `switch` or `test` to a system that has another
        value under a name that the running system has too is refused; `boot` is not.
      '';
    };

    switch.rules = lib.mkOption {
      type = lib.types.enum [ "script" "2026" "2024-09" "perl" ];
      default = "2026";
      description = ''
        Whose ways switch-to-configuration has: a short script's, or those of NixOS's programs: today's, the one that 24.11 began
        with, or the one from before. With those, /etc/systemd/system is one link into the store.
      '';
    };

    switch.fault = lib.mkOption {
      default = null;
      description = "For tests: makes switch-to-configuration stop where nothing real would, or hang.";
      type = lib.types.nullOr (lib.types.submodule {
        options = {
          phase = lib.mkOption {
            type = lib.types.enum [ "check" "boot" "activate" "units" "end" ];
            description = "Before which step: checks, boot loader, activation, daemon-reload; or at the end.";
          };
          exitCode = lib.mkOption {
            type = lib.types.nullOr lib.types.int;
            default = null;
            description = "The status to exit with there; null goes on.";
          };
          sleep = lib.mkOption { type = lib.types.int; default = 0; description = "Seconds to wait there first."; };
          deaf = lib.mkOption {
            type = lib.types.bool;
            default = false;
            description = "Whether that ignores signals, and leaves a daemon behind that waits as long and ignores them too.";
          };
          actions = lib.mkOption {
            type = lib.types.listOf lib.types.str;
            default = [ "switch" "boot" "test" "dry-activate" ];
            description = "The actions that it happens in.";
          };
        };
      });
    };
  };

  config = {
    system.preSwitchChecks.switchInhibitors = lib.mkIf (cfg.switch.inhibitors != { }) ''
      case $2 in boot | dry-activate) exit 0 ;; esac
      old=/run/current-system/switch-inhibitors
      [ -e "$old" ] || exit 0
      pairs() { # file: its pairs, one a line
        sed 's/^{//; s/}$//' "$1" | tr ',' '\n'
      }
      changed=$(pairs "$1/switch-inhibitors" | while read -r pair; do
        pairs "$old" | grep -F "''${pair%%:*}:" | grep -vxF "$pair" || true
      done)
      [ -n "$changed" ] || exit 0
      echo "The new configuration changes what this one was booted with:" >&2
      echo "$changed" >&2
      echo "Use boot and restart the machine, or set NIXOS_NO_CHECK=1 to switch all the same." >&2
      exit 1
    '';

    system.build = {
      switchInhibitors = builtins.toJSON cfg.switch.inhibitors;

      preSwitchChecks = ''
        #!${pkgs.runtimeShell}
        # pre-switch-checks TOPLEVEL ACTION
        export PATH=${pkgs.busybox}/bin:/usr/sbin:/usr/bin:/sbin:/bin
        result=0
        failed() {
          echo "Pre-switch check '$1' failed" >&2
          result=1
        }
        ${checks}
        exit $result
      '';

      switchToConfiguration =
        if cfg.switch.rules == "script" then pkgs.fillIn ./switch-to-configuration.sh {
          shell = pkgs.runtimeShell;
          path = "${pkgs.busybox}/bin";
          installBootLoader = cfg.build.installBootLoader;
          faultPhase = if cfg.switch.fault == null then "none" else cfg.switch.fault.phase;
          faultSleep = if cfg.switch.fault == null then 0 else cfg.switch.fault.sleep;
          faultDeaf = cfg.switch.fault != null && cfg.switch.fault.deaf;
          faultExit = if cfg.switch.fault == null || cfg.switch.fault.exitCode == null then "" else cfg.switch.fault.exitCode;
          faultActions = if cfg.switch.fault == null then "" else cfg.switch.fault.actions;
        } else if cfg.switch.rules == "perl" then ''
          #!${pkgs.perl}/bin/perl
          # The program in Perl told units apart by the places of their files, which it called fingerprintUnit. The stand-in's own
          # program does that here.
          ${lib.concatStrings (lib.mapAttrsToList (name: value: "$ENV{${name}} = '${value}';\n") environment)}
          exec '${switchProgram}', @ARGV or die "$!\n";
        '' else ''
          #!${pkgs.runtimeShell}
          ${lib.concatStrings (lib.mapAttrsToList (name: value: "export ${name}='${value}'\n") environment)}
          exec ${switchProgram} "$@"
        '';
    };
  };
}
