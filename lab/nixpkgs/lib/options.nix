# Declaring options, and writing their names and values in messages.
{ lib }:

rec {
  # An option. Known attributes: type, default, defaultText, example, description, apply, internal, readOnly, visible.
  mkOption = attributes: attributes // { _type = "option"; };

  mkEnableOption = what: mkOption {
    type = lib.types.bool;
    default = false;
    example = true;
    description = "Whether to enable ${what}.";
  };

  mkPackageOption = pkgs: name: _: mkOption {
    type = lib.types.package;
    default = pkgs.${name};
    description = "The ${toString name} package to use.";
  };

  isOption = x: builtins.isAttrs x && (x._type or null) == "option";

  # Text that goes into a manual, which this tree does not build.
  literalExpression = text: { _type = "literalExpression"; inherit text; };
  literalMD = literalExpression;
  mdDoc = text: text;

  # The name of an option as a person writes it: quoted where a part is no identifier.
  showOption = lib.concatMapStringsSep "." (part:
    if builtins.match "[a-zA-Z_*<][a-zA-Z0-9_'*>-]*|\\[.*]" part != null then part else builtins.toJSON part);

  # A value in at most a few lines, and never an error: what cannot be evaluated is shown as such.
  showValue =
    let
      show = depth: value:
        let
          attempt = builtins.tryEval value;
          v = attempt.value;
          inner = show (depth - 1);
          wrap = open: close: items: if items == [ ] then "${open} ${close}" else "${open} ${toString items} ${close}";
        in
        if !attempt.success then "<error>"
        else if builtins.isString v then builtins.toJSON (builtins.unsafeDiscardStringContext v)
        else if builtins.isPath v then toString v
        else if v == null then "null"
        else if builtins.isBool v then lib.boolToString v
        else if builtins.isFunction v then "<function>"
        else if builtins.isList v then (if depth == 0 then "[ … ]" else wrap "[" "]" (map inner v))
        else if lib.isDerivation v then "<derivation ${v.name or "?"}>"
        else if builtins.isAttrs v then
          (if depth == 0 then "{ … }"
          else wrap "{" "}" (lib.mapAttrsToList (name: x: "${name} = ${inner x};") v))
        else toString v;
    in
    show 2;

  # The lines "- In `file': value" under an error.
  showDefinitions = lib.concatMapStrings (definition:
    "\n- In `${definition.file}': ${showValue definition.value}");

  useForce = "\nUse `lib.mkForce value` or `lib.mkDefault value` to change the priority on any of these definitions.";

  # Merge functions for types that cannot really merge.
  mergeOne = loc: definitions:
    if builtins.length definitions == 1 then (builtins.head definitions).value
    else throw "The unique option `${showOption loc}' is defined multiple times. Definition values:${
      showDefinitions definitions}${useForce}";
  mergeOneOption = mergeOne;

  mergeEqual = loc: definitions:
    let first = builtins.head definitions; in
    if builtins.all (definition: definition.value == first.value) definitions then first.value
    else throw "The option `${showOption loc}' has conflicting definition values:${
      showDefinitions definitions}${useForce}";
  mergeEqualOption = mergeEqual;
}
