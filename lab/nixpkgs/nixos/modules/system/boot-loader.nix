# The lab's boot loaders. The usual one cannot try an entry once, as extlinux: its menu is files, /boot/entries/N that name the
# toplevel of generation N, and /boot/default the one to boot. The others have the files and programs of systemd-boot and GRUB.
{ config, lib, pkgs, ... }:

let
  cfg = config.boot.loader.lab;

  program = file: values: pkgs.fillIn file ({ shell = pkgs.runtimeShell; path = "${pkgs.busybox}/bin"; } // values);
  install = name: file:
    let loader = pkgs.writeScript name (program file { kernelParams = toString config.boot.kernelParams; });
    in if cfg.before == { } then loader else pkgs.writeShellScript "${name}-after" ''
      set -e
      export PATH=${pkgs.busybox}/bin:/usr/sbin:/usr/bin:/sbin:/bin
      ${lib.concatStringsSep "\n" (builtins.attrValues cfg.before)}
      exec ${loader} "$@"
    '';

  bootctl = pkgs.writeScriptBin "bootctl" (program ./bootctl.sh { });
  editenv = pkgs.writeScriptBin "grub-editenv" (program ./grub-editenv.sh { });
  reboot = pkgs.writeScriptBin "grub-reboot" (program ./grub-reboot.sh { editenv = "${editenv}/bin/grub-editenv"; });
in
{
  options = {
    boot.loader.lab = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether `switch` and `boot` write the boot menu.";
      };
      tryOnce = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether the loader is like systemd-boot, and there is `bootctl`.";
      };
      before = lib.mkOption {
        type = lib.types.attrsOf lib.types.str;
        default = { };
        description = "For tests: shell commands that are run before the boot menu is written; that fails if they do.";
      };
      grub = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether the loader is like GRUB, and there is `grub-reboot`.";
      };
    };
    boot.kernelParams = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Recorded in the toplevel's kernel-params and in boot menus; containers have no use for them.";
    };
  };

  config = {
    assertions = [{ assertion = !(cfg.tryOnce && cfg.grub); message = "A machine has one boot loader: tryOnce or grub."; }];

    environment.systemPackages = lib.optionals cfg.enable
      (lib.optional cfg.tryOnce bootctl ++ lib.optionals cfg.grub [ editenv reboot ]);

    system.build.installBootLoader =
      if !cfg.enable then pkgs.writeShellScript "no-boot-loader"
        "echo 'Warning: do not know how to make this configuration bootable; please enable a boot loader.' >&2\n"
      else if cfg.tryOnce then install "install-systemd-boot" ./install-systemd-boot.sh
      else if cfg.grub then install "install-grub" ./install-grub.sh
      else install "install-lab-loader" ./install-lab-loader.sh;
  };
}
