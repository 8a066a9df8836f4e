# Variants of the system, in TOPLEVEL/specialisation/NAME.
{ config, lib, extendModules, ... }:

{
  options.specialisation = lib.mkOption {
    default = { };
    description = "Systems that are this one plus more configuration.";
    type = lib.types.attrsOf (lib.types.submodule {
      options.configuration = lib.mkOption {
        type = lib.types.deferredModule;
        default = { };
        description = "What to add.";
      };
    });
  };

  config.system.build.specialisations = builtins.mapAttrs
    (_: variant: (extendModules {
      modules = [ variant.configuration { specialisation = lib.mkOverride 0 { }; } ];
    }).config.system.build.toplevel)
    config.specialisation;
}
