# The module system: many modules, each a path, a function or a set, become one `config` and one `options`.
#
# How it works: `collect` reads the modules and what they import. `mergeTree` walks the tree of declarations and pushes the
# definitions down it at the same time; what meets no declaration is "unmatched", an error. At a leaf,
# `mergeDefinitions` resolves conditions, priorities and order, and the type merges what is left. All of it is lazy:
# a definition may read any other option.
{ lib }:

let
  inherit (lib.options) isOption mkOption showOption showDefinitions;

  defaultPriority = 100;
  defaultOrder = 1000;

  # A set that only looks like a value: { _type = kind; … }.
  isProperty = kind: x: (x._type or null) == kind;

  # A module file's parts. A set without `config` and `options` is short for one whose `config` it is.
  reserved = [ "_file" "key" "imports" ];
  normalise = file: module:
    let
      unsupported = builtins.attrNames
        (builtins.removeAttrs module (reserved ++ [ "_class" "options" "config" "meta" ]));
      from = module._file or file;
    in
    if !builtins.isAttrs module then
      throw "Module `${file}' is neither a set nor a function but of type ${builtins.typeOf module}."
    else if module ? config || module ? options then
      if unsupported != [ ] then
        throw ("Module `${from}' has an unsupported attribute `${builtins.head unsupported}'. This is caused by introducing"
          + " a top-level `config' or `options' attribute. Add configuration attributes immediately on the top level"
          + " instead, or move all of them (namely: ${toString unsupported}) into the explicit `config' attribute.")
      else {
        file = from;
        imports = module.imports or [ ];
        options = module.options or { };
        config = module.config or { };
      }
    else {
      file = from;
      imports = module.imports or [ ];
      options = { };
      config = builtins.removeAttrs module reserved;
    };

  # Every module once, in the order in which their definitions are merged: what a file imports comes before the file.
  collect = arguments: modules:
    let
      call = file: f: f (arguments.given // builtins.mapAttrs
        (name: _: builtins.addErrorContext "while evaluating the module argument `${name}' in `${file}':"
          (arguments.given.${name} or arguments.lookup.${name}))
        (builtins.functionArgs (if builtins.isFunction f then f else f.__functor f)));

      load = parentKey: parentFile: n: module:
        let
          isFile = builtins.isPath module || builtins.isString module;
          name = builtins.unsafeDiscardStringContext (toString module);
          file = if isFile then name else parentFile;
          content = if isFile then import module else module;
          normal = normalise file (if lib.isFunction content then call file content else content);
        in
        {
          key = if isFile then name else content.key or "${parentKey}:anon-${toString n}";
          inherit normal;
        };

      loadAll = key: file: lib.imap1 (load key file);
    in
    map (entry: entry.normal) (lib.reverseList (builtins.genericClosure {
      startSet = loadAll "" "<unknown-file>" modules;
      operator = entry: loadAll entry.key entry.normal.file entry.normal.imports;
    }));

  # mkIf, mkMerge and mkForce around a set of definitions move to each of its attributes.
  pushDown = value:
    if isProperty "merge" value then builtins.concatMap pushDown value.contents
    else if isProperty "if" value then
      map (builtins.mapAttrs (_: content: mkIf value.condition content)) (pushDown value.content)
    else if isProperty "override" value then
      map (builtins.mapAttrs (_: content: mkOverride value.priority content)) (pushDown value.content)
    else [ value ];

  # The values a definition really stands for: none under a false condition, several in an mkMerge.
  discharge = value:
    if isProperty "merge" value then builtins.concatMap discharge value.contents
    else if isProperty "if" value then
      (if !builtins.isBool value.condition then throw "`mkIf' called with a non-Boolean condition"
      else if value.condition then discharge value.content else [ ])
    else [ value ];

  priorityOf = definition: if isProperty "override" definition.value then definition.value.priority else defaultPriority;

  inOrder = definitions:
    let
      orderOf = definition: if isProperty "order" definition.value then definition.value.priority else defaultOrder;
      strip = definition:
        if isProperty "order" definition.value then definition // { value = definition.value.content; } else definition;
    in
    if !builtins.any (definition: isProperty "order" definition.value) definitions then definitions
    else map strip (builtins.sort (a: b: orderOf a < orderOf b) definitions);

  # loc, type and [ { file; value; } ] to { isDefined, value, definitions, priority }. `value` throws when there is none.
  mergeDefinitions = loc: type: definitions:
    let
      present = builtins.concatMap
        (definition: map (value: { inherit (definition) file; inherit value; }) (discharge definition.value))
        definitions;
      priority = builtins.foldl' (least: definition: lib.min least (priorityOf definition)) 9999 present;
      strip = definition:
        if isProperty "override" definition.value then definition // { value = definition.value.content; } else definition;
      chosen = inOrder (map strip (builtins.filter (definition: priorityOf definition == priority) present));
      wrong = builtins.filter (definition: !type.check definition.value) chosen;
      isDefined = chosen != [ ];
    in
    {
      isDefined = isDefined || type.emptyValue ? value;
      definitions = chosen;
      inherit priority;
      value =
        if isDefined then
          if wrong == [ ] then type.merge loc chosen
          else throw "A definition for option `${showOption loc}' is not of type `${type.description}'. Definition values:${
            showDefinitions wrong}"
        else type.emptyValue.value or (throw "The option `${showOption loc}' is used but not defined.");
    };

  # One option: its declarations and definitions become what `options` shows of it, the value included.
  evalOption = loc: declarations: definitions:
    let
      declaration = builtins.head declarations;
      option = declaration.options;
      type = option.type or lib.types.unspecified;
      byDefault = lib.optional (option ? default) {
        inherit (declaration) file;
        value = mkOptionDefault option.default;
      };
      merged = mergeDefinitions loc type (byDefault ++ definitions);
      value =
        if (option.readOnly or false) && builtins.length merged.definitions > 1 then
          throw "The option `${showOption loc}' is read-only, but it's set multiple times. Definition values:${
            showDefinitions merged.definitions}"
        else builtins.addErrorContext "while evaluating the option `${showOption loc}':" merged.value;
    in
    if builtins.length declarations > 1 then
      throw "The option `${showOption loc}' in `${(lib.last declarations).file}' is already declared in `${declaration.file}'."
    else option // {
      inherit loc type;
      inherit (merged) isDefined definitions;
      value = (option.apply or lib.id) value;
      highestPrio = merged.priority;
      files = map (definition: definition.file) merged.definitions;
      declarations = [ declaration.file ];
      __toString = _: showOption loc;
    };

  # declarations [ { file; options; } ] and definitions [ { file; value; } ] at loc to { config, options, unmatched }.
  mergeTree = loc: declarations: definitions:
    let
      declared = builtins.zipAttrsWith (_: list: list) (map
        (d: builtins.mapAttrs (_: options: { inherit (d) file; inherit options; }) d.options) declarations);

      asSet = file: value:
        if builtins.isAttrs value then value
        else throw ("The option path `${showOption loc}' is an attribute set of options, but it is defined to not be an"
          + " attribute set in `${file}'. Did you want to set one of the options in it?");
      defined = builtins.zipAttrsWith (_: list: list) (builtins.concatMap
        (d: map (value: builtins.mapAttrs (_: v: { inherit (d) file; value = v; }) (asSet d.file value)) (pushDown d.value))
        definitions);

      node = name: list:
        let
          here = loc ++ [ name ];
          leaves = builtins.filter (d: isOption d.options) list;
          nested = builtins.filter (d: !isOption d.options) list;
          option = evalOption here leaves (defined.${name} or [ ]);
        in
        if leaves == [ ] then mergeTree here list (defined.${name} or [ ])
        else if nested != [ ] then
          throw "The option `${showOption here}' in `${(builtins.head leaves).file}' is a prefix of options in `${
            (builtins.head nested).file}'."
        else { config = option.value; options = option; unmatched = [ ]; };

      nodes = builtins.mapAttrs node declared;
      unknown = builtins.removeAttrs defined (builtins.attrNames declared);
    in
    {
      config = builtins.mapAttrs (_: n: n.config) nodes;
      options = builtins.mapAttrs (_: n: n.options) nodes;
      unmatched = lib.mapAttrsToList (name: list: { loc = loc ++ [ name ]; definitions = list; }) unknown
        ++ builtins.concatMap (n: n.unmatched) (builtins.attrValues nodes);
    };

  # Evaluate modules. `specialArgs` are arguments that may be used in `imports`; all others come from the option
  # `_module.args`. The result has config, options, _module and extendModules ({ modules, specialArgs } -> the same again).
  evalModules = { modules, prefix ? [ ], specialArgs ? { }, check ? true, ... }:
    let
      own = {
        _file = "lib/modules.nix";
        options._module.args = mkOption {
          type = lib.types.lazyAttrsOf lib.types.raw;
          default = { };
          description = "Arguments for every module that is a function.";
        };
      };

      parts = collect
        {
          given = { inherit lib; config = tree.config; options = tree.options; } // specialArgs;
          lookup = tree.config._module.args;
        }
        (modules ++ [ own ]);

      tree = mergeTree prefix
        (map (part: { inherit (part) file options; }) parts)
        (map (part: { inherit (part) file; value = part.config; }) parts);

      first = builtins.head tree.unmatched;
      checked =
        if !check || tree.unmatched == [ ] then lib.id
        else throw "The option `${showOption first.loc}' does not exist. Definition values:${
          showDefinitions first.definitions}";
    in
    {
      config = checked tree.config;
      inherit (tree) options;
      inherit (tree.config) _module;
      extendModules = more: evalModules {
        modules = modules ++ more.modules or [ ];
        inherit prefix check;
        specialArgs = specialArgs // more.specialArgs or { };
      };
    };

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOptionDefault = mkOverride 1500;
  mkOrder = priority: content: { _type = "order"; inherit priority content; };

  showFiles = option: toString (map (file: "`${file}'") option.files);

  # A module that makes the definition of an option that is gone an error which says what to do.
  mkRemovedOptionModule = path: instead: { options, ... }: {
    options = lib.setAttrByPath path (mkOption {
      visible = false;
      apply = _: throw "The option `${showOption path}' can no longer be used since it's been removed. ${instead}";
    });
    config.assertions =
      let option = lib.getAttrFromPath path options; in [
        {
          assertion = !option.isDefined;
          message = "The option definition `${showOption path}' in ${showFiles option} no longer has any effect;"
            + " please remove it.\n${instead}";
        }
      ];
  };

  # A module that lets the old name of an option set the new one.
  mkRenamedOptionModule = from: to: { config, options, ... }: {
    options = lib.setAttrByPath from (mkOption { visible = false; apply = _: lib.getAttrFromPath to config; });
    config =
      let option = lib.getAttrFromPath from options; in mkMerge [
        (lib.setAttrByPath to (mkIf option.isDefined (mkMerge (map (d: d.value) option.definitions))))
        {
          warnings = lib.optional option.isDefined
            "The option `${showOption from}' defined in ${showFiles option} has been renamed to `${showOption to}'.";
        }
      ];
  };
in
{
  inherit evalModules mergeDefinitions mkIf mkMerge mkOverride mkOptionDefault mkOrder mkRemovedOptionModule
    mkRenamedOptionModule;
  mkForce = mkOverride 50;
  mkVMOverride = mkOverride 10;
  mkDefault = mkOverride 1000;
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;
  defaultOverridePriority = defaultPriority;
}
