# import <nixpkgs> { }: the package set. Arguments as in nixpkgs: `system` (or `localSystem`) builds, `crossSystem` runs,
# `overlays` are applied in order, `config` may have `packageOverrides`.
{ system ? null
, localSystem ? if system != null then system else builtins.currentSystem
, crossSystem ? null
, config ? { }
, overlays ? [ ]
, crossOverlays ? [ ]
, ...
}:

import ./pkgs {
  lib = import ./lib;
  buildPlatform = localSystem;
  hostPlatform = if crossSystem == null then localSystem else crossSystem;
  inherit config;
  overlays = overlays ++ (if crossSystem == null then [ ] else crossOverlays);
}
