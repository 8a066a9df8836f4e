# The library: the part of nixpkgs' `lib` that configurations use, under the same names. Flat, with the groups
# (`lib.strings`, `lib.types`, …) beside it, as there.
let
  basics = import ./basics.nix;
  lib = basics // rec {
    options = import ./options.nix { inherit lib; };
    types = import ./types.nix { inherit lib; };
    modules = import ./modules.nix { inherit lib; };
    systems = import ./systems.nix;
    trivial = import ./version.nix { inherit lib; } // {
      inherit (basics) id const boolToString functionArgs isFunction;
    };
    strings = basics;
    lists = basics;
    attrsets = basics;
    sources = basics;

    inherit (options) mkOption mkEnableOption mkPackageOption isOption showOption showValue
      literalExpression literalMD mdDoc;
    inherit (modules) evalModules mkIf mkMerge mkOverride mkForce mkDefault mkVMOverride mkOptionDefault
      mkOrder mkBefore mkAfter mkRemovedOptionModule mkRenamedOptionModule;
    inherit (trivial) version release versionSuffix revisionWithDefault;
  };
in
lib
