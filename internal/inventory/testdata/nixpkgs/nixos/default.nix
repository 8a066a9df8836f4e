# The least that looks like NixOS to ferry: options are what the configuration says, and the toplevel holds them.
{
  configuration ? <nixos-config>,
  system ? builtins.currentSystem,
}:
let
  pkgs = import ../pkgs.nix { inherit system; };
  module = import configuration;
  user = if builtins.isFunction module then module { inherit pkgs config; } else module;
  config = user // {
    _module.args = { inherit pkgs; };
    system = {
      nixos.version = "99.05" + versionSuffix;
      build.toplevel = toplevel;
    };
  };
  versionSuffix =
    if builtins.pathExists ../.version-suffix then builtins.readFile ../.version-suffix else "pre-git";
  toplevel = pkgs.script "nixos-system-test" ''
    mkdir -p $out/sw/bin
    printf '%s' "$text" >$out/text
    printf '%s' "$version" >$out/nixos-version
    ln -s ${pkgs.bash} $out/bash
  '' {
    text = config.text or "";
    version = config.system.nixos.version;
  };
in
{
  inherit config;
  system = toplevel;
}
