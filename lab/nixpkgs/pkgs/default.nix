# The package set for one pair of platforms. Every package is built on `buildPlatform` and runs on `hostPlatform`.
{ lib, buildPlatform, hostPlatform, config, overlays }:

let
  build = lib.systems.elaborate buildPlatform;
  host = lib.systems.elaborate hostPlatform;

  again = changes: import ./. ({ inherit lib buildPlatform hostPlatform config overlays; } // changes);

  packages = pkgs: {
    _type = "pkgs";
    inherit lib config overlays;
    path = ../.;
    stdenv = import ./stdenv.nix { inherit lib build host; };

    # The same packages for the machine that builds.
    buildPackages = if lib.systems.equals build host then pkgs else again { hostPlatform = buildPlatform; };
    targetPackages = pkgs;
    pkgsBuildBuild = pkgs.buildPackages;
    pkgsCross = builtins.mapAttrs (_: platform: again { hostPlatform = platform; }) lib.systems.examples;
    extend = overlay: again { overlays = overlays ++ [ overlay ]; };
    appendOverlays = more: if more == [ ] then pkgs else again { overlays = overlays ++ more; };

    callPackage = lib.callPackageWith pkgs;
    system = host.system;
    nixos = configuration: import ../nixos/lib/eval-config.nix {
      modules = lib.toList configuration ++ [ { nixpkgs.pkgs = lib.mkDefault pkgs; } ];
      system = null;
    };
  } // import ./builders.nix { inherit lib pkgs; }
    // import ./packages.nix { inherit lib pkgs; };

  byConfig = _: previous: (config.packageOverrides or (_: { })) previous;
in
lib.fix (builtins.foldl' (lib.flip lib.extends) packages ([ byConfig ] ++ overlays))
