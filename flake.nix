{
  description = "Deploys NixOS over ssh: builds here, ships differences, switches there and rolls back by itself";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: rec {
        ferry = pkgs.callPackage ./package.nix { };
        default = ferry;
      });
      overlays.default = final: _: { ferry = final.callPackage ./package.nix { }; };
      # For the machine that builds and deploys; targets need nothing.
      nixosModules.default = import ./module.nix;
    };
}
