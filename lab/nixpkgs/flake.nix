# The tree as a flake, in the shape of nixpkgs' own: lib.nixosSystem makes systems whose version says which commit they are from.
{
  description = "The stand-in for nixpkgs";

  outputs = { self }:
    let
      lib = import ./lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];

      versionInfo = {
        system.nixos.versionSuffix =
          ".${builtins.substring 0 8 (self.lastModifiedDate or "19700101")}.${self.shortRev or "dirty"}";
        system.nixos.revision = lib.mkIf (self ? rev) self.rev;
      };
    in
    {
      lib = lib // {
        nixosSystem = args: import ./nixos/lib/eval-config.nix ({ system = null; } // args // {
          modules = args.modules ++ [ versionInfo ];
        });
      };

      legacyPackages = builtins.listToAttrs
        (map (system: { name = system; value = import ./. { inherit system; }; }) systems);
    };
}
