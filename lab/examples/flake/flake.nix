{
  # In real life: "github:NixOS/nixpkgs/nixos-26.05".
  inputs.nixpkgs.url = "path:NIXPKGS";

  outputs = { self, nixpkgs }: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      system = "SYSTEM";
      modules = [ ./configuration.nix ];
    };
  };
}
