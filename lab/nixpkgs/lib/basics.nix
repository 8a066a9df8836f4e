# Functions on strings, lists, sets and paths, under nixpkgs' names.
rec {
  inherit (builtins) add all any attrNames attrValues compareVersions concatLists concatMap concatStringsSep elem elemAt
    filter foldl' fromJSON functionArgs genList getAttr hasAttr head intersectAttrs isAttrs isBool isInt isList isPath
    isString length lessThan listToAttrs mapAttrs match partition pathExists readFile removeAttrs replaceStrings sort
    split splitVersion stringLength substring tail toJSON toString trace tryEval typeOf unsafeDiscardStringContext
    zipAttrsWith;

  # Values and functions.
  id = x: x;
  const = x: _: x;
  flip = f: a: b: f b a;
  pipe = builtins.foldl' (x: f: f x);
  fix = f: let x = f x; in x;
  extends = overlay: f: final: let previous = f final; in previous // overlay final previous;
  isFunction = f: builtins.isFunction f || (f ? __functor && builtins.isFunction (f.__functor f));
  toFunction = f: if isFunction f then f else _: f;
  boolToString = b: if b then "true" else "false";
  warn = message: builtins.trace "warning: ${message}";
  warnIf = condition: message: if condition then warn message else id;
  throwIf = condition: message: if condition then throw message else id;
  throwIfNot = condition: throwIf (!condition);
  assertMsg = condition: message: condition || throw message;
  min = a: b: if a < b then a else b;
  max = a: b: if a > b then a else b;
  versionOlder = a: b: builtins.compareVersions b a == 1;
  versionAtLeast = a: b: !versionOlder a b;

  # Lists.
  singleton = x: [ x ];
  optional = condition: x: if condition then [ x ] else [ ];
  optionals = condition: list: if condition then list else [ ];
  toList = x: if builtins.isList x then x else [ x ];
  last = list: builtins.elemAt list (builtins.length list - 1);
  init = list: take (builtins.length list - 1) list;
  take = n: list: builtins.genList (builtins.elemAt list) (min n (builtins.length list));
  drop = n: list:
    builtins.genList (i: builtins.elemAt list (i + n)) (max 0 (builtins.length list - n));
  reverseList = list:
    let n = builtins.length list; in builtins.genList (i: builtins.elemAt list (n - 1 - i)) n;
  range = from: to: if from > to then [ ] else builtins.genList (i: from + i) (to - from + 1);
  imap0 = f: list: builtins.genList (i: f i (builtins.elemAt list i)) (builtins.length list);
  imap1 = f: imap0 (i: f (i + 1));
  flatten = x: if builtins.isList x then builtins.concatMap flatten x else [ x ];
  foldr = f: initial: list: builtins.foldl' (rest: x: f x rest) initial (reverseList list);
  unique = builtins.foldl' (seen: x: if builtins.elem x seen then seen else seen ++ [ x ]) [ ];
  subtractLists = gone: builtins.filter (x: !builtins.elem x gone);
  findFirst = wanted: default: list:
    let found = builtins.filter wanted list; in if found == [ ] then default else builtins.head found;
  count = wanted: list: builtins.length (builtins.filter wanted list);

  # Sets.
  nameValuePair = name: value: { inherit name value; };
  mapAttrsToList = f: set: builtins.attrValues (builtins.mapAttrs f set);
  mapAttrs' = f: set: builtins.listToAttrs (mapAttrsToList f set);
  filterAttrs = wanted: set:
    builtins.removeAttrs set (builtins.filter (name: !wanted name set.${name}) (builtins.attrNames set));
  genAttrs = names: f: builtins.listToAttrs (map (name: nameValuePair name (f name)) names);
  optionalAttrs = condition: set: if condition then set else { };
  getAttrs = names: set: genAttrs names (name: set.${name});
  attrByPath = path: default: set:
    if path == [ ] then set
    else if builtins.isAttrs set && set ? ${builtins.head path}
    then attrByPath (builtins.tail path) default set.${builtins.head path}
    else default;
  hasAttrByPath = path: set:
    path == [ ] || (set ? ${builtins.head path} && hasAttrByPath (builtins.tail path) set.${builtins.head path});
  getAttrFromPath = path: set:
    attrByPath path (throw "cannot find attribute `${builtins.concatStringsSep "." path}'") set;
  setAttrByPath = path: value:
    if path == [ ] then value else { ${builtins.head path} = setAttrByPath (builtins.tail path) value; };
  recursiveUpdate = a: b:
    if builtins.isAttrs a && builtins.isAttrs b
    then builtins.zipAttrsWith
      (_: values: if builtins.length values == 1 then builtins.head values
        else recursiveUpdate (builtins.head values) (last values)) [ a b ]
    else b;
  isDerivation = x: builtins.isAttrs x && (x.type or null) == "derivation";

  # Strings.
  concatStrings = builtins.concatStringsSep "";
  concatMapStrings = f: list: concatStrings (map f list);
  concatMapStringsSep = separator: f: list: builtins.concatStringsSep separator (map f list);
  concatLines = concatMapStrings (line: line + "\n");
  concatMapAttrsStringSep = separator: f: set: builtins.concatStringsSep separator (mapAttrsToList f set);
  optionalString = condition: text: if condition then text else "";
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  hasSuffix = suffix: text:
    let n = builtins.stringLength text - builtins.stringLength suffix;
    in n >= 0 && builtins.substring n (-1) text == suffix;
  hasInfix = infix: text: builtins.match ".*${escapeRegex infix}.*" (replaceNewlines text) != null;
  replaceNewlines = builtins.replaceStrings [ "\n" ] [ " " ];
  removePrefix = prefix: text:
    if hasPrefix prefix text then builtins.substring (builtins.stringLength prefix) (-1) text else text;
  removeSuffix = suffix: text:
    if hasSuffix suffix text
    then builtins.substring 0 (builtins.stringLength text - builtins.stringLength suffix) text
    else text;
  splitString = separator: text:
    builtins.filter builtins.isString (builtins.split (escapeRegex separator) text);
  stringToCharacters = text: builtins.genList (i: builtins.substring i 1 text) (builtins.stringLength text);
  escape = characters: builtins.replaceStrings characters (map (c: "\\" + c) characters);
  escapeRegex = escape (stringToCharacters "\\[{()^$?*+|.");
  escapeShellArg = arg:
    let text = toString arg; in
    if builtins.match "[[:alnum:],._+:@%/-]+" text != null then text
    else "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  toShellVar = name: value: "${name}=${escapeShellArg value}";
  toLower = builtins.replaceStrings (stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    (stringToCharacters "abcdefghijklmnopqrstuvwxyz");
  toUpper = builtins.replaceStrings (stringToCharacters "abcdefghijklmnopqrstuvwxyz")
    (stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
  fixedWidthString = width: filler: text:
    if builtins.stringLength text >= width then text else fixedWidthString width filler (filler + text);
  makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
  getName = package: package.pname or (builtins.parseDrvName package.name).name;
  getVersion = package: package.version or (builtins.parseDrvName package.name).version;
  getExe = package: "${package}/bin/${package.meta.mainProgram or (getName package)}";
  getExe' = package: program: "${package}/bin/${program}";
  getBin = id;
  getLib = id;

  # Packages that are functions.
  makeOverridable = f: arguments:
    let result = f arguments; in
    if builtins.isAttrs result
    then result // { override = changes: makeOverridable f (arguments // toFunction changes arguments); }
    else result;
  callPackageWith = scope: function: arguments:
    let f = if isFunction function then function else import function; in
    makeOverridable f (builtins.intersectAttrs (builtins.functionArgs f) scope // arguments);

  # Files.
  fileContents = file: removeSuffix "\n" (builtins.readFile file);
  importJSON = file: builtins.fromJSON (builtins.readFile file);
  cleanSource = path: builtins.path {
    inherit path;
    name = "source";
    filter = name: _: !builtins.elem (baseNameOf name) [ ".git" ".svn" ".hg" ];
  };
}
