# The programs that everybody on the machine has: /run/current-system/sw.
{ config, lib, pkgs, ... }:

let
  cfg = config.environment;
in
{
  options = {
    environment.systemPackages = lib.mkOption {
      type = lib.types.listOf lib.types.package;
      default = [ ];
      example = lib.literalExpression "[ pkgs.hello ]";
      description = "Packages whose programs are in everybody's PATH.";
    };
    environment.pathsToLink = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Folders of those packages that appear in the system path.";
    };
    environment.variables = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      description = "Environment variables of login shells.";
    };
    system.path = lib.mkOption {
      type = lib.types.package;
      internal = true;
      description = "The packages you want in the boot environment.";
    };
  };

  config = {
    environment.systemPackages = [
      pkgs.bash
      pkgs.coreutils
      pkgs.diffutils
      pkgs.findutils
      pkgs.gawk
      pkgs.gnugrep
      pkgs.gnused
      pkgs.gnutar
      pkgs.gzip
      pkgs.less
      pkgs.procps
    ];
    environment.pathsToLink = [ "/bin" "/share" ];
    system.path = pkgs.buildEnv {
      name = "system-path";
      paths = cfg.systemPackages;
      inherit (cfg) pathsToLink;
    };
    environment.etc."profile.d/nixos.sh".text = ''
      export PATH="$PATH:/run/current-system/sw/bin"
    '' + lib.concatStrings (lib.mapAttrsToList (name: value: "export ${lib.toShellVar name value}\n") cfg.variables);
  };
}
