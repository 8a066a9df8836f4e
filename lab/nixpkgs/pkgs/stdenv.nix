# Making derivations. The builder is the busybox of the platform that builds, taken from `bootstrap/`: it has a shell and the
# usual programs, and no compiler.
{ lib, build, host }:

let
  bootstrapOf = platform:
    let folder = ../bootstrap + "/${platform.system}"; in
    if builtins.pathExists (folder + "/busybox")
    then builtins.path { name = "busybox-bootstrap-${platform.system}"; path = folder; }
    else throw "No userland for ${platform.system}: ${toString folder}/busybox does not exist. Use a tree that `assemble` made.";

  tools = bootstrapOf build;

  # A derivation that runs `buildCommand` in sh with busybox's programs in PATH; without one, the steps of generic.sh.
  # `passthru` and `meta` are attributes of the package only.
  mkDerivation = argument:
    let
      attributes = if lib.isFunction argument then lib.fix argument else argument;
      own = [ "passthru" "meta" "pname" "version" "nativeBuildInputs" "buildInputs" "buildCommand" ];
      name = attributes.name or "${attributes.pname}-${attributes.version}";
      inputs = attributes.nativeBuildInputs or [ ] ++ attributes.buildInputs or [ ];
      path = lib.concatMapStrings (input: "${input}/bin:") inputs + "${tools}";
      drv = derivation (builtins.removeAttrs attributes own // {
        name = if host.system == build.system then name else "${name}-${host.config}";
        inherit (build) system;
        builder = "${tools}/sh";
        args = if attributes ? buildCommand then [ "-e" "-c" attributes.buildCommand ] else [ "-e" ./generic.sh ];
        PATH = path;
      });
    in
    drv // {
      meta = attributes.meta or { };
      passthru = attributes.passthru or { };
      overrideAttrs = f: mkDerivation (attributes // f attributes);
    } // lib.optionalAttrs (attributes ? pname) { inherit (attributes) pname; }
      // lib.optionalAttrs (attributes ? version) { inherit (attributes) version; }
      // attributes.passthru or { };
in
{
  inherit mkDerivation;
  inherit (host) system;
  buildPlatform = build;
  hostPlatform = host;
  targetPlatform = host;
  shell = "${tools}/sh";

  # What the packages themselves are made of: the binaries of the platform that they run on.
  hostBootstrap = bootstrapOf host;
}
