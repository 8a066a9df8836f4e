# The release that the system is, and how the machine tells.
{ config, lib, pkgs, ... }:

let
  cfg = config.system.nixos;
  text = value: if value == null then "" else value;
in
{
  options.system = {
    stateVersion = lib.mkOption {
      type = lib.types.str;
      default = cfg.release;
      description = "The release that the machine was first installed with.";
    };
    configurationRevision = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "The revision of the configuration, as `nixos-version --configuration-revision` shows it.";
    };
    nixos = {
      release = lib.mkOption { type = lib.types.str; readOnly = true; default = lib.trivial.release; };
      versionSuffix = lib.mkOption { type = lib.types.str; default = lib.trivial.versionSuffix; };
      version = lib.mkOption { type = lib.types.str; default = cfg.release + cfg.versionSuffix; };
      revision = lib.mkOption { type = lib.types.nullOr lib.types.str; default = lib.trivial.revisionWithDefault null; };
      codeName = lib.mkOption { type = lib.types.str; readOnly = true; default = lib.trivial.codeName; };
      tags = lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; };
      label = lib.mkOption {
        type = lib.types.strMatching "[a-zA-Z0-9:_.-]*";
        default = builtins.concatStringsSep "-" (builtins.sort builtins.lessThan cfg.tags ++ [ cfg.version ]);
        description = "The name of this generation in the boot menu.";
      };
    };
  };

  config = {
    environment.etc.os-release.replace = true;
    environment.etc.os-release.text = ''
      NAME=NixOS
      ID=nixos
      VERSION="${cfg.version} (${cfg.codeName})"
      VERSION_CODENAME=${lib.toLower cfg.codeName}
      VERSION_ID="${cfg.release}"
      BUILD_ID="${cfg.version}"
      PRETTY_NAME="NixOS ${cfg.release} (${cfg.codeName})"
    '';
    environment.etc.issue = {
      text = "NixOS ${cfg.label} (\\m) - \\l\n";
      replace = true;
    };

    environment.systemPackages = [
      (pkgs.writeShellScriptBin "nixos-version" ''
        case ''${1:-} in
        --hash | --revision) echo ${text cfg.revision} ;;
        --configuration-revision) echo ${text config.system.configurationRevision} ;;
        --json) echo ${lib.escapeShellArg (builtins.toJSON (lib.filterAttrs (_: value: value != null) {
          nixosVersion = cfg.version;
          nixpkgsRevision = cfg.revision;
          inherit (config.system) configurationRevision;
        }))} ;;
        *) echo "${cfg.version} (${cfg.codeName})" ;;
        esac
      '')
    ];
  };
}
