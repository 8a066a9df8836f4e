# The activation script: what makes the running machine look like the system. Snippets by name, in the order of their deps.
{ config, lib, pkgs, ... }:

let
  cfg = config.system;

  snippet = lib.types.submodule {
    options = {
      text = lib.mkOption { type = lib.types.lines; default = ""; description = "What to do, in sh."; };
      deps = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "Names of the snippets that come first.";
      };
      supportsDryActivation = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether it runs in a dry activation as well, and then only says what it would do.";
      };
    };
  };

  # Names so that each comes after its deps.
  ordered =
    let
      visit = trail: done: name:
        if builtins.elem name done then done
        else if builtins.elem name trail then
          throw "The activation script snippets ${toString (trail ++ [ name ])} depend on each other."
        else if !cfg.activationScripts ? ${name} then
          throw "The activation script snippet `${lib.last trail}' depends on `${name}', which does not exist."
        else builtins.foldl' (visit (trail ++ [ name ])) done cfg.activationScripts.${name}.deps ++ [ name ];
    in
    builtins.foldl' (visit [ ]) [ ] (builtins.attrNames cfg.activationScripts);

  run = name: ''

    #### Activation script snippet ${name}:
    (
    set -e
    ${cfg.activationScripts.${name}.text}
    )
    _finished ${lib.escapeShellArg name} $?
  '';
  runAll = names: lib.concatMapStrings run
    (builtins.filter (name: cfg.activationScripts.${name}.text != "") names);

  start = dry: ''
    #!${pkgs.runtimeShell}
    systemConfig=@out@
    export PATH=${pkgs.busybox}/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export NIXOS_ACTION=''${NIXOS_ACTION:-${if dry then "dry-activate" else "switch"}}
    umask 0022
    _status=0
    _finished() { # snippet, status
      [ "$2" -eq 0 ] && return
      echo "Activation script snippet '$1' failed ($2)"
      _status=1
    }
  '';
in
{
  options.system = {
    activationScripts = lib.mkOption {
      type = lib.types.attrsOf (lib.types.coercedTo lib.types.str (text: { inherit text; }) snippet);
      default = { };
      example = { stdio = { text = "exec </dev/null"; deps = [ ]; }; };
      description = "Snippets of sh that run at each activation and boot, each in a shell of its own.";
    };
    build = lib.mkOption {
      type = lib.types.lazyAttrsOf lib.types.unspecified;
      default = { };
      description = "Derivations that the modules build the system from.";
    };
  };

  config = {
    system.activationScripts = {
      specialfs = "";
      users.deps = [ "groups" ];
      var = ''
        mkdir -p /var/lib/nixos /nix/var/nix/gcroots
      '';
    };

    # The end is what makes it current, whether snippets failed or not, as in NixOS.
    system.build.activate = ''
      ${start false}
      ${runAll ordered}
      ln -sfn "$(readlink -f "$systemConfig")" /run/current-system
      ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
      exit $_status
    '';
    system.build.dryActivate = ''
      ${start true}
      ${runAll (builtins.filter (name: cfg.activationScripts.${name}.supportsDryActivation) ordered)}
      exit $_status
    '';
  };
}
