# The least that looks like nixpkgs' flake to ferry: a system is what its modules say, and its derivation tells all of it.
{
  outputs =
    { self }:
    let
      script =
        system: name: text: attributes:
        derivation (
          {
            inherit name system;
            builder = "/bin/sh";
            args = [
              "-euc"
              text
            ];
            PATH = "/usr/bin:/bin";
          }
          // attributes
        );
      packages = system: {
        path = ./.;
        inherit system;
        bash = script system "bash" "mkdir -p $out/bin; ln -s /bin/sh $out/bin/sh" { };
        coreutils = script system "coreutils" "mkdir -p $out; ln -s /usr/bin $out/bin" { };
        lib.version = "99.05";
      };
    in
    {
      legacyPackages.x86_64-linux = packages "x86_64-linux";
      lib.nixosSystem =
        {
          system,
          modules,
          specialArgs ? { },
        }:
        let
          pkgs = packages system;
          called = module: if builtins.isFunction module then module (specialArgs // { inherit pkgs; }) else module;
          read = module: if builtins.isPath module then called (import module) else called module;
          text = builtins.toJSON (map read modules);
          version = "99.05.${builtins.substring 0 8 self.lastModifiedDate}.${self.shortRev or "dirty"}";
          config.system = {
            nixos.version = version;
            build.toplevel =
              script system "nixos-system-test" ''mkdir -p $out/sw/bin; printf %s "$text" >$out/text; printf %s "$version" >$out/nixos-version''
                { inherit text version; };
          };
        in
        {
          inherit config pkgs;
        };
    };
}
