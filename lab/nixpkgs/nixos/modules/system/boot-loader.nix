# The lab's boot loader. Its menu is files: /boot/entries/N names the toplevel of generation N, /boot/default the one to boot.
{ config, lib, pkgs, ... }:

let
  cfg = config.boot;
in
{
  options = {
    boot.loader.lab.enable = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether `switch` and `boot` write /boot/entries and /boot/default.";
    };
    boot.kernelParams = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Recorded in the toplevel's kernel-params; containers have no use for them.";
    };
  };

  config.system.build.installBootLoader =
    if cfg.loader.lab.enable
    then pkgs.writeScript "install-lab-loader" (pkgs.fillIn ./install-lab-loader.sh {
      shell = pkgs.runtimeShell;
      path = "${pkgs.busybox}/bin";
    })
    else pkgs.writeShellScript "no-boot-loader"
      "echo 'Warning: do not know how to make this configuration bootable; please enable a boot loader.' >&2\n";
}
