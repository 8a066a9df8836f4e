# Calls a flake the way Nix does, from the trees of a lock that are in the store already, and says which of them are looked at.
{
  # flake.lock, parsed.
  lock,
  # The node of the lock that is called, the attributes that Nix gives its source, and the flake's folder in that source.
  start,
  source,
  dir,
  # Of every node with a source of its own, where its tree is: { outPath; }, with all attributes where the lock has no narHash.
  trees,
  # Is given a node's key and its tree's path when that is looked at, and gives the path.
  look,
  # Whether a flake in a subfolder is that folder. Before Nix 2.14 it was the whole source.
  subfolders,
  # Whether a relative input's sourceInfo is its folder, as Nix has it before 2.34, and not the tree that it is in.
  relativeSources,
}:
let
  inherit (builtins)
    head
    isFunction
    isList
    mapAttrs
    stringLength
    substring
    tail
    ;

  # An input is a node's key, or the path to it from the root of the lock.
  resolve = input: if isList input then follow lock.root input else input;
  follow =
    key: path:
    if path == [ ] then key else follow (resolve lock.nodes.${key}.inputs.${head path}) (tail path);

  optional = condition: attributes: if condition then attributes else { };
  mod = a: b: a - b * (a / b);
  digits = n: text: if stringLength text < n then digits n "0${text}" else text;
  # A time in seconds as Nix writes it, 20260301120000, by the usual count of days in years that begin in March.
  date =
    time:
    let
      days = time / 86400 + 719468;
      era = days / 146097;
      dayOfEra = days - era * 146097;
      yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146096) / 365;
      dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100);
      m = (5 * dayOfYear + 2) / 153;
      month = if m < 10 then m + 3 else m - 9;
      year = yearOfEra + era * 400 + (if month <= 2 then 1 else 0);
      second = mod time 86400;
      two = n: digits 2 (toString n);
    in
    digits 4 (toString year)
    + two month
    + two (dayOfYear - (153 * m + 2) / 5 + 1)
    + two (second / 3600)
    + two (mod (second / 60) 60)
    + two (mod second 60);

  # What Nix tells of a source besides its path.
  about =
    locked:
    optional (locked ? narHash) { inherit (locked) narHash; }
    // optional ((locked.type or "") == "git") { submodules = locked.submodules or false; }
    // optional (locked ? rev) {
      inherit (locked) rev;
      shortRev = substring 0 7 locked.rev;
    }
    // optional (locked ? revCount) { inherit (locked) revCount; }
    // optional (locked ? dirtyRev) { inherit (locked) dirtyRev dirtyShortRev; }
    // optional (locked ? lastModified) {
      inherit (locked) lastModified;
      lastModifiedDate = date locked.lastModified;
    };

  nodes = mapAttrs (
    key: node:
    let
      # Relative inputs are folders and files in the tree of the flake that names them.
      relative = key != start && node.locked.type == "path" && substring 0 1 node.locked.path != "/";
      parent = nodes.${follow lock.root node.parent};
      subfolder = if key == start then dir else node.locked.dir or "";
      folder = if relative then "${parent.folder}/${node.locked.path}" else subfolder;

      sourceInfo =
        if key == start then
          about source // { inherit (source) outPath; }
        else if relative then
          parent.sourceInfo // optional relativeSources { outPath = relativePath; }
        else
          optional (!(node.locked ? narHash)) trees.${key}
          // about node.locked
          // { outPath = look key trees.${key}.outPath; };
      relativePath = parent.top + "/" + folder;
      # The whole tree that it is in.
      top = if relative then parent.top else sourceInfo.outPath;

      flakePath =
        if relative then relativePath else top + (if subfolder == "" then "" else "/" + subfolder);
      flake = import (flakePath + "/flake.nix");
      inputs = mapAttrs (_: input: nodes.${resolve input}.result) (node.inputs or { });
      outputs = flake.outputs (inputs // { self = called; });
      called =
        outputs
        // sourceInfo
        // {
          inherit inputs outputs sourceInfo;
        }
        // optional subfolders {
          outPath = flakePath;
          _type = "flake";
        };
    in
    {
      inherit folder sourceInfo top;
      result =
        if !(node.flake or true) then
          sourceInfo // optional relative { outPath = relativePath; }
        else if isFunction flake.outputs then
          called
        else
          throw "the attribute `outputs` of ${flakePath}/flake.nix is no function";
    }
  ) lock.nodes;
in
nodes.${start}.result
