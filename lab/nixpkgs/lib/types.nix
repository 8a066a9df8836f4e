# Option types. A type is a set with: name, description (for messages), check (is this value one?), merge (loc and the
# definitions of the highest priority, as [ { file; value; } ], to the value), and emptyValue ({ value = …; } when
# an option without definitions has a value all the same).
{ lib }:

let
  inherit (lib.options) mergeOne mergeEqual showOption showDefinitions;
  mergeDefinitions = lib.modules.mergeDefinitions;

  simple = name: description: check: mkOptionType { inherit name description check; merge = mergeEqual; };

  mkOptionType = { name, description ? name, check ? (_: true), merge ? mergeEqual, emptyValue ? { }, ... }@type:
    type // { _type = "option-type"; inherit name description check merge emptyValue; };

  # The definitions of one attribute name in several sets.
  byName = definitions: builtins.zipAttrsWith (_: values: values) (map
    (definition: builtins.mapAttrs (_: value: { inherit (definition) file; inherit value; }) definition.value)
    definitions);

  between = low: high: mkOptionType {
    name = "intBetween";
    description = "integer between ${toString low} and ${toString high} (both inclusive)";
    check = x: builtins.isInt x && low <= x && x <= high;
  };

  isPathLike = x: (builtins.isPath x || builtins.isString x || lib.isDerivation x) && lib.hasPrefix "/" (toString x);
in
rec {
  inherit mkOptionType;

  unspecified = mkOptionType { name = "unspecified"; merge = mergeAnything; };
  raw = mkOptionType { name = "raw"; description = "raw value"; merge = mergeOne; };
  anything = mkOptionType { name = "anything"; merge = mergeAnything; };

  bool = simple "bool" "boolean" builtins.isBool;
  int = simple "int" "signed integer" builtins.isInt;
  float = simple "float" "floating point number" builtins.isFloat;
  number = either int float;
  ints = {
    inherit between;
    unsigned = simple "unsignedInt" "unsigned integer, meaning >=0" (x: builtins.isInt x && x >= 0);
    positive = simple "positiveInt" "positive integer, meaning >0" (x: builtins.isInt x && x > 0);
    u8 = between 0 255;
    u16 = between 0 65535;
    u32 = between 0 4294967295;
  };
  port = between 0 65535 // { description = "16 bit unsigned integer; between 0 and 65535 (both inclusive)"; };

  str = simple "str" "string" builtins.isString;
  singleLineStr = simple "singleLineStr" "single-line string"
    (x: builtins.isString x && builtins.match "[^\n]*" x != null);
  nonEmptyStr = simple "nonEmptyStr" "non-empty string"
    (x: builtins.isString x && builtins.match "[[:space:]]*" x == null);
  strMatching = pattern: simple "strMatching" "string matching the pattern ${pattern}"
    (x: builtins.isString x && builtins.match pattern x != null);
  separatedString = separator: mkOptionType {
    name = "separatedString";
    description = "strings concatenated with ${builtins.toJSON separator}";
    check = builtins.isString;
    merge = _: definitions: lib.concatMapStringsSep separator (definition: definition.value) definitions;
  };
  lines = separatedString "\n";
  commas = separatedString ",";
  envVar = separatedString ":";

  path = mkOptionType { name = "path"; description = "absolute path"; check = isPathLike; };
  package = mkOptionType {
    name = "package";
    check = x: lib.isDerivation x || (isPathLike x && lib.hasPrefix builtins.storeDir (toString x));
    merge = mergeOne;
  };
  shellPackage = package;
  pkgs = mkOptionType { name = "pkgs"; description = "Nixpkgs package set"; check = x: (x._type or null) == "pkgs";
    merge = mergeOne; };

  enum = values: simple "enum" "one of ${lib.concatMapStringsSep ", " lib.options.showValue values}"
    (x: builtins.elem x values);

  nullOr = elem: mkOptionType {
    name = "nullOr";
    description = "null or ${elem.description}";
    check = x: x == null || elem.check x;
    merge = loc: definitions:
      let nulls = lib.count (definition: definition.value == null) definitions; in
      if nulls == builtins.length definitions then null
      else if nulls != 0 then
        throw "The option `${showOption loc}' is defined both null and not null:${showDefinitions definitions}"
      else elem.merge loc definitions;
    emptyValue.value = null;
  };

  either = a: b: mkOptionType {
    name = "either";
    description = "${a.description} or ${b.description}";
    check = x: a.check x || b.check x;
    merge = loc: definitions:
      let allAre = type: builtins.all (definition: type.check definition.value) definitions; in
      if allAre a then a.merge loc definitions
      else if allAre b then b.merge loc definitions
      else mergeOne loc definitions;
  };
  oneOf = list: builtins.foldl' either (builtins.head list) (builtins.tail list);

  coercedTo = from: coerce: to: mkOptionType {
    name = "coercedTo";
    description = "${to.description} or ${from.description} convertible to it";
    check = x: (from.check x && to.check (coerce x)) || to.check x;
    merge = loc: definitions: to.merge loc (map
      (definition: definition // { value = if from.check definition.value then coerce definition.value else definition.value; })
      definitions);
    inherit (to) emptyValue;
  };

  functionTo = result: mkOptionType {
    name = "functionTo";
    description = "function that evaluates to a(n) ${result.description}";
    check = lib.isFunction;
    merge = loc: definitions: argument: (mergeDefinitions (loc ++ [ "<function body>" ]) result (map
      (definition: definition // { value = definition.value argument; }) definitions)).value;
  };

  listOf = elem: mkOptionType {
    name = "listOf";
    description = "list of ${elem.description}";
    check = builtins.isList;
    merge = loc: definitions:
      let
        one = n: file: m: value:
          mergeDefinitions (loc ++ [ "[definition ${toString n}-entry ${toString m}]" ]) elem [ { inherit file value; } ];
        entries = lib.concatLists (lib.imap1
          (n: definition: lib.imap1 (one n definition.file) definition.value) definitions);
      in
      map (entry: entry.value) (builtins.filter (entry: entry.definitions != [ ]) entries);
    emptyValue.value = [ ];
  };
  nonEmptyListOf = elem: listOf elem // { check = x: builtins.isList x && x != [ ]; };

  attrsOf = elem: mkOptionType {
    name = "attrsOf";
    description = "attribute set of ${elem.description}";
    check = builtins.isAttrs;
    merge = loc: definitions:
      builtins.mapAttrs (_: entry: entry.value) (lib.filterAttrs (_: entry: entry.definitions != [ ])
        (builtins.mapAttrs (name: mergeDefinitions (loc ++ [ name ]) elem) (byName definitions)));
    emptyValue.value = { };
  };

  # Like attrsOf, but the names are known without evaluating any value: an entry under `mkIf false` is there, and fails
  # when it is read.
  lazyAttrsOf = elem: attrsOf elem // {
    name = "lazyAttrsOf";
    merge = loc: definitions:
      builtins.mapAttrs (name: entries: (mergeDefinitions (loc ++ [ name ]) elem entries).value) (byName definitions);
  };

  attrs = mkOptionType {
    name = "attrs";
    description = "attribute set";
    check = builtins.isAttrs;
    merge = _: builtins.foldl' (all: definition: all // definition.value) { };
    emptyValue.value = { };
  };

  submodule = modules: submoduleWith { modules = lib.toList modules; };
  submoduleWith = { modules, specialArgs ? { }, ... }: mkOptionType {
    name = "submodule";
    check = x: builtins.isAttrs x || lib.isFunction x || builtins.isPath x;
    merge = loc: definitions:
      let
        asModule = definition: {
          _file = definition.file;
        } // (if builtins.isAttrs definition.value && !lib.isFunction definition.value
          then { config = definition.value; }
          else { imports = [ definition.value ]; });
        evaluated = lib.modules.evalModules {
          modules = modules ++ [ { _file = "<submodule>"; _module.args.name = lib.mkOptionDefault (lib.last loc); } ]
            ++ map asModule definitions;
          prefix = loc;
          inherit specialArgs;
        };
      in
      builtins.removeAttrs evaluated.config [ "_module" ];
    emptyValue.value = { };
  };

  deferredModule = mkOptionType {
    name = "deferredModule";
    description = "module";
    check = x: builtins.isAttrs x || lib.isFunction x || builtins.isPath x;
    merge = _: definitions: {
      imports = map (definition: { _file = definition.file; imports = [ definition.value ]; }) definitions;
    };
    emptyValue.value = { };
  };

  # Sets are merged name by name, lists joined, everything else must be equal.
  mergeAnything = loc: definitions:
    let
      allAre = check: builtins.all (definition: check definition.value) definitions;
    in
    if builtins.length definitions == 1 then (builtins.head definitions).value
    else if allAre builtins.isList then builtins.concatMap (definition: definition.value) definitions
    else if allAre (x: builtins.isAttrs x && !lib.isDerivation x) then (attrsOf anything).merge loc definitions
    else mergeEqual loc definitions;
}
