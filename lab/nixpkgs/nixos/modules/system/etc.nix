# The files of /etc that the system brings, and how they get there.
{ config, lib, pkgs, ... }:

let
  entries = builtins.filter (entry: entry.enable) (builtins.attrValues config.environment.etc);
  copied = builtins.filter (entry: entry.mode != "symlink") entries;

  fileName = path: "etc-${lib.concatMapStrings
    (c: if builtins.match "[a-zA-Z0-9+._?=-]" c == null then "-" else c) (lib.stringToCharacters (baseNameOf path))}";

  entry = { name, config, ... }: {
    options = {
      enable = lib.mkOption { type = lib.types.bool; default = true; description = "Whether the file is there."; };
      target = lib.mkOption { type = lib.types.str; default = name; description = "Its path below /etc."; };
      text = lib.mkOption { type = lib.types.nullOr lib.types.lines; default = null; description = "Its content."; };
      source = lib.mkOption { type = lib.types.path; description = "The file or folder it is."; };
      mode = lib.mkOption {
        type = lib.types.str;
        default = "symlink";
        example = "0600";
        description = "`symlink` for a link to the store, or the mode of a copy.";
      };
      user = lib.mkOption { type = lib.types.str; default = "root"; description = "Owner of a copy."; };
      replace = lib.mkOption {
        type = lib.types.bool;
        default = false;
        internal = true;
        description = "Whether it takes the place of the distribution's own file; otherwise that one stays.";
      };
      group = lib.mkOption { type = lib.types.str; default = "root"; description = "Group of a copy."; };
    };
    config.source = lib.mkIf (config.text != null) (lib.mkDefault (pkgs.writeText (fileName name) config.text));
  };

  etc = pkgs.runCommand "etc" { } ''
    place() { # target, source
      target=$out/etc/$1
      [ -d "''${target%/*}" ] || mkdir -p "''${target%/*}"
      # A builder without a sandbox could write into another store path.
      case $(readlink -f "''${target%/*}") in
      "$out"/etc*) ;;
      *) echo "environment.etc: $1 would lie in ''${target%/*}, which is another entry's" >&2; exit 1 ;;
      esac
      ln -s "$2" "$target"
    }
    mkdir -p $out/etc
    ${lib.concatMapStrings (e: "place ${lib.escapeShellArgs [ e.target "${e.source}" ]}\n") entries}
    cat >$out/copies <<'END'
    ${lib.concatMapStringsSep "\n" (e: "${e.mode} ${e.user}:${e.group} ${e.target}") copied}
    END
    printf '%s\n' ${lib.escapeShellArgs (map (e: e.target) (builtins.filter (e: e.replace) entries))} >$out/replaced
  '';

  setup = pkgs.writeScript "setup-etc" (pkgs.fillIn ./setup-etc.sh { shell = pkgs.runtimeShell; });
in
{
  options.environment.etc = lib.mkOption {
    type = lib.types.attrsOf (lib.types.submodule entry);
    default = { };
    example = { "example.conf" = { text = "hello"; mode = "0440"; }; };
    description = "Files that the system puts in /etc.";
  };

  config = {
    system.build.etc = etc;
    system.activationScripts.etc = {
      deps = [ "users" "groups" ];
      text = ''
        echo "setting up /etc..."
        ${setup} ${etc}
      '';
    };
  };
}
