# The bundle of a configuration that was evaluated before, and of the trees that were looked at then.
{
  node,
  # { drv; out; output; system; } of the system, of the tools that put the bundle together, and of the shell of the switch script.
  toplevel,
  tools,
  coreutils,
  shell,
  # Store paths: the flake's source, and of each input that was looked at its name in the bundle and its tree. nixpkgs may be below one.
  source,
  inputs,
  nixpkgs,
  nixpkgsTree,
  # Texts.
  json,
  flakeNix,
  flakeLock,
  defaultNix,
  builder,
  switchScript,
}:
let
  inherit (builtins) appendContext concatStringsSep map;

  made = it: appendContext it.out { ${it.drv}.outputs = [ it.output ]; };
  tree = path: appendContext path { ${path}.path = true; };
in
derivation {
  name = "ferry-${node}";
  inherit (tools) system;
  builder = "${made tools}/bin/sh";
  args = [
    "-euc"
    builder
  ];
  preferLocalBuild = true;
  allowSubstitutes = false;
  source = tree source;
  toplevel = made toplevel;
  coreutils = made coreutils;
  shell = "${made shell}/bin/sh";
  nixpkgs = appendContext nixpkgs { ${nixpkgsTree}.path = true; };
  inputs = concatStringsSep "\n" (map (input: "${input.name} ${tree input.path}") inputs);
  passAsFile = [
    "defaultNix"
    "flakeLock"
    "flakeNix"
    "inputs"
    "json"
  ];
  inherit
    defaultNix
    flakeLock
    flakeNix
    json
    node
    switchScript
    ;
}
