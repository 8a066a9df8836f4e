# Evaluates one node, exactly as plain NixOS does, and wraps it in its bundle. The answer says which derivations these
# are, or what is wrong with the pin.
{
  # The source's store path, as a string with context.
  source,
  # The configuration's path below the source.
  configuration,
  # The pin as the inventory has it: a tree's path, string or attribute set with outPath. Read lazily.
  nixpkgs,
  system,
  # The inventory, and of each of its nodes the configuration and the system, for configurations that ask for `nodes`;
  # null if this one cannot. Read lazily.
  inventory,
  nodes,
  # What ferry.json says besides what is known here.
  manifest,
  # The texts of the bundle's builder and of its switch script.
  builder,
  switchScript,
}:
let
  inherit (builtins)
    attrNames
    concatStringsSep
    functionArgs
    hasContext
    isAttrs
    isFunction
    isPath
    isString
    mapAttrs
    match
    pathExists
    stringLength
    substring
    toJSON
    typeOf
    unsafeDiscardStringContext
    ;

  # A path that is not an element of the store has to be put there first, which is Go's part.
  value = if isAttrs nixpkgs && nixpkgs ? outPath then nixpkgs.outPath else nixpkgs;
  text = toString value;
  sourceText = unsafeDiscardStringContext source;
  below = substring (stringLength sourceText) (-1) text;
  inSource =
    substring (stringLength sourceText) 1 "${text}/" == "/"
    && substring 0 (stringLength sourceText) text == sourceText;
  pin =
    if isPath value || isString value && !hasContext value then
      if inSource then
        { tree = source + unsafeDiscardStringContext below; }
      else if match "/.*" text != null then
        { outside = text; }
      else
        {
          wrong = {
            type = "string";
            value = text;
          };
        }
    else if isString value then
      { tree = value; }
    else
      { wrong = { type = typeOf value; } // (if isAttrs value then { packages = value ? path; } else { }); };

  # Plain NixOS gets paths without string context from its search path, so this does too; import builds what the
  # string refers to first.
  plainPath = string: /. + unsafeDiscardStringContext string;
  nixosFile = "${pin.tree}/nixos/default.nix";
  nixos = import (plainPath nixosFile) {
    configuration = withNodes configuration;
    inherit system;
  };

  # A configuration whose function asks for `nodes` is given it by a module around it. Any other is left as it is.
  withNodes =
    below:
    let
      file = plainPath "${source}/${below}";
      function = import file;
    in
    if !(isFunction function && functionArgs function ? nodes) then
      file
    else if nodes == null then
      throw "the configuration asks for `nodes`, and the node's `source` narrows what it is made from"
    else
      {
        imports = [ file ];
        _module.args.nodes = allNodes;
      };
  allNodes = mapAttrs (
    name: node:
    let
      it =
        if name == manifest.node then
          nixos
        else
          import (treeOf name + "/nixos") {
            configuration = withNodes node.configuration;
            inherit (node) system;
          };
    in
    {
      inherit (it) config options;
    }
  ) nodes;
  # The inventory's own pin is at hand, unless this node has another one.
  treeOf =
    name:
    let
      given = inventory.nodes.${name}.nixpkgs or inventory.nixpkgs;
    in
    if inventory.nodes.${name} ? nixpkgs || inventory.nodes.${manifest.node} ? nixpkgs then
      plainPath (toString (if isAttrs given then given.outPath else given))
    else
      plainPath pin.tree;
  inherit (nixos) config;
  toplevel = nixos.system;
  # Before about 2018 nixos/default.nix did not give pkgs; since 21.11 config has no _module.
  pkgs = nixos.pkgs or config._module.args.pkgs;
  tools = pkgs.buildPackages or pkgs;
  version =
    config.system.nixos.version
      or (config.system.nixosVersion or (pkgs.lib.version or pkgs.lib.nixpkgsVersion));

  json = concatStringsSep "" [
    "{\n"
    (concatStringsSep ",\n" (map (name: "  ${toJSON name}: ${toJSON facts.${name}}") (attrNames facts)))
    "\n}\n"
  ];
  facts = manifest // {
    inherit system source;
    configuration = "${source}/${configuration}";
    nixpkgs = pin.tree;
    nixpkgsVersion = version;
    profile = toplevel.outPath;
  };

  bundle = derivation {
    name = "ferry-${manifest.node}";
    inherit (tools.bash) system;
    builder = "${tools.bash}/bin/sh";
    args = [
      "-euc"
      builder
    ];
    preferLocalBuild = true;
    allowSubstitutes = false;
    inherit source toplevel switchScript;
    inherit (facts) configuration nixpkgs;
    inherit (tools) coreutils;
    inherit json;
    shell = "${pkgs.bash}/bin/sh";
    node = manifest.node;
  };
in
{
  # Building is part of looking: a pin may be the output of a derivation.
  pin = if pin ? tree then builtins.seq (pathExists nixosFile) pin else pin;
  answer =
    if !(pin ? tree) then
      pin
    else if !(pathExists nixosFile) then
      { withoutNixos = pin.tree; }
    else
      {
        bundle = bundle.drvPath;
        inherit (pin) tree;
        bundleOut = bundle.outPath;
        bundleSystem = bundle.system;
        toplevel = toplevel.drvPath;
        toplevelOut = toplevel.outPath;
        toplevelSystem = toplevel.system;
        inherit version;
      };
}
