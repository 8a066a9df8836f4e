# ferry, from the nixpkgs that is given: nix-build, or nix-env -f . -i.
{
  pkgs ? import <nixpkgs> { },
}:
pkgs.callPackage ./package.nix { }
