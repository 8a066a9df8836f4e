# Evaluates one of the configurations of a flake, and says which derivations it is made of.
{
  # The outputs of the flake, called for this configuration alone.
  flake,
  # The configuration's name.
  name,
}:
let
  inherit (builtins) attrNames unsafeDiscardStringContext;

  configurations = flake.outputs.nixosConfigurations or { };
  nixos = configurations.${name};
  inherit (nixos) config;
  inherit (config.system.build) toplevel;
  pkgs = nixos.pkgs or config._module.args.pkgs;
  tools = pkgs.buildPackages or pkgs;

  # What a derivation makes, so that another evaluation can use it.
  made = package: {
    drv = unsafeDiscardStringContext package.drvPath;
    out = unsafeDiscardStringContext package.outPath;
    output = package.outputName or "out";
    inherit (package) system;
  };
in
if !(configurations ? ${name}) then
  { missing = attrNames configurations; }
else if !(config.system.build ? toplevel) then
  { without = true; }
else
  {
    toplevel = made toplevel;
    tools = made tools.bash;
    coreutils = made tools.coreutils;
    shell = made pkgs.bash;
    nixpkgs = toString pkgs.path;
    system = pkgs.stdenv.hostPlatform.system or pkgs.system;
    version =
      config.system.nixos.version
        or (config.system.nixosVersion or (pkgs.lib.version or pkgs.lib.nixpkgsVersion));
  }
