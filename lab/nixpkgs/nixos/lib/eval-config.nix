# Evaluate modules as a NixOS system: { config, options, pkgs, lib, _module, extendModules }. `system` is the platform to
# build on and for, unless `nixpkgs.hostPlatform` or `nixpkgs.pkgs` says otherwise; null leaves it to them.
{ system ? builtins.currentSystem
, modules
, pkgs ? null
, baseModules ? import ../modules/module-list.nix
, extraModules ? [ ]
, specialArgs ? { }
, extraArgs ? { }
, lib ? import ../../lib
, check ? true
, prefix ? [ ]
}:

let
  evaluated = lib.evalModules {
    inherit prefix check;
    modules = modules ++ extraModules ++ baseModules ++ [ fromArguments ];
    specialArgs = { modulesPath = toString ../modules; } // specialArgs;
  };

  fromArguments = {
    _file = toString ./eval-config.nix;
    nixpkgs.system = lib.mkIf (system != null) (lib.mkDefault system);
    nixpkgs.pkgs = lib.mkIf (pkgs != null) (lib.mkDefault pkgs);
    _module.args = extraArgs // {
      inherit baseModules extraModules modules;
      inherit (evaluated) extendModules;
    };
  };
in
evaluated // {
  inherit lib;
  inherit (evaluated._module.args) pkgs;
}
