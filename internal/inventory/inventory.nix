# Reads an inventory without evaluating a configuration or fetching a pin. Every attribute becomes a description,
# { type; value; } or { type; items; }, so that Go can say what it expected and what it found. Go picks one of the answers.
{
  # The source's store path, as a string with context.
  source,
  # The inventory's path below the source.
  file,
  # The building machine's system.
  system,
  # What takes the inventory's place; null: nothing does.
  outputs,
}:
let
  inherit (builtins)
    attrNames
    filter
    functionArgs
    intersectAttrs
    isAttrs
    isFunction
    isList
    isPath
    listToAttrs
    mapAttrs
    typeOf
    unsafeDiscardStringContext
    ;

  given = { inherit system source; };
  # A path, not a string: what the inventory refers to as ./x then has no string context, as with plain NixOS.
  expression =
    if outputs != null then
      outputs
    else
      import (/. + unsafeDiscardStringContext "${source}/${file}");
  arguments = if isFunction expression then functionArgs expression else { };
  unknownArguments = filter (name: !arguments.${name} && !(given ? ${name})) (attrNames arguments);
  inventory =
    if isFunction expression then expression (intersectAttrs arguments given) else expression;

  describe =
    value:
    let
      type = typeOf value;
    in
    {
      inherit type;
    }
    // (
      if isList value then
        { items = map describe value; }
      else if isPath value then
        { value = toString value; }
      else if isAttrs value || isFunction value then
        { }
      else
        { inherit value; }
    );

  # With the attributes of sets as well, as deep as `checks` goes: what is deeper may have no end, as a package has none.
  describeWithin =
    depth: value:
    if isAttrs value && (value.type or null) == "derivation" then
      { type = "package"; }
    else if depth > 0 && isAttrs value then
      {
        type = "set";
        attributes = mapAttrs (_: describeWithin (depth - 1)) value;
      }
    else if depth > 0 && isList value then
      {
        type = "list";
        items = map (describeWithin (depth - 1)) value;
      }
    else
      describe value;

  # The pin is left alone: looking at it may fetch it.
  describeAttribute =
    name: value:
    if name == "nixpkgs" then
      { type = "unread"; }
    else if name == "checks" then
      describeWithin 3 value
    else
      describe value;
  describeNode =
    node:
    if isAttrs node then
      {
        type = "set";
        attributes = mapAttrs describeAttribute node;
      }
    else
      describe node;

  shape =
    if unknownArguments != [ ] then
      { inherit unknownArguments; }
    else if !isAttrs inventory then
      { inherit (describe inventory) type; }
    else
      {
        type = "set";
        attributes = attrNames inventory;
        nodes =
          if !(inventory ? nodes) then
            null
          else if isAttrs inventory.nodes then
            {
              type = "set";
              names = attrNames inventory.nodes;
            }
          else
            { inherit (describe inventory.nodes) type; };
      };

  # What may be read by everyone, though it looks private. It is read from a source that lacks just that.
  worldReadable =
    if isAttrs inventory && inventory ? worldReadable then
      describeWithin 1 inventory.worldReadable
    else
      {
        type = "list";
        items = [ ];
      };
in
{
  inherit inventory shape worldReadable;
  all = {
    inherit shape worldReadable;
    nodes =
      if (shape.nodes.type or "") == "set" then
        mapAttrs (_: describeNode) inventory.nodes
      else
        { };
  };
  node = name: describeNode inventory.nodes.${name};
  attributes = name: attrNames inventory.nodes.${name};
  attribute = name: attribute: describeAttribute attribute inventory.nodes.${name}.${attribute};
}
