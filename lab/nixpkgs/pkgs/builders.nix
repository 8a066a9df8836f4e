# Functions that make small derivations, under nixpkgs' names.
{ lib, pkgs }:

let
  inherit (pkgs.stdenv) mkDerivation;
in
rec {
  inherit (pkgs.stdenv) shell;

  runCommand = name: attributes: buildCommand: mkDerivation (attributes // { inherit name buildCommand; });
  runCommandLocal = runCommand;
  runCommandNoCC = runCommand;

  # The shell of the machine that runs a script, not of the one that builds it.
  runtimeShell = "${pkgs.bash}/bin/sh";

  writeTextFile = { name, text, executable ? false, destination ? "", meta ? { }, checkPhase ? "", ... }:
    mkDerivation {
      inherit name text meta;
      passAsFile = [ "text" ];
      target = destination;
      buildCommand = lib.optionalString (destination != "") ''mkdir -p "$(dirname "$out$target")"
        '' + ''cp "$textPath" "$out$target"
        '' + lib.optionalString executable ''chmod +x "$out$target"
        '' + checkPhase;
    };
  writeText = name: text: writeTextFile { inherit name text; };
  writeTextDir = path: text: writeTextFile { name = baseNameOf path; inherit text; destination = "/${path}"; };
  writeScript = name: text: writeTextFile { inherit name text; executable = true; };
  writeScriptBin = name: text: writeTextFile {
    inherit name text;
    executable = true;
    destination = "/bin/${name}";
    meta.mainProgram = name;
  };
  writeShellScript = name: text: writeScript name "#!${runtimeShell}\n${text}";
  writeShellScriptBin = name: text: writeScriptBin name "#!${runtimeShell}\n${text}";
  writeShellApplication = { name, text, runtimeInputs ? [ ], ... }: writeShellScriptBin name ''
    set -euo pipefail
    export PATH="${lib.makeBinPath runtimeInputs}:$PATH"
    ${text}
  '';

  # One folder of links to the files of many; of files with the same path, the first package's wins.
  buildEnv = { name, paths, pathsToLink ? [ "/" ], postBuild ? "", meta ? { }, ... }: mkDerivation {
    inherit name meta;
    paths = lib.unique paths;
    folders = pathsToLink;
    buildCommand = ''
      linkFolder() { # from, to
        from=$1 to=$2
        mkdir -p "$to"
        set --
        for entry in "$from"/* "$from"/.[!.]*; do
          if [ -d "$entry" ] && [ ! -L "$entry" ]; then continue; fi
          if [ ! -e "$entry" ] && [ ! -L "$entry" ]; then continue; fi
          [ -L "$to/''${entry##*/}" ] || set -- "$@" "$entry"
        done
        [ $# -eq 0 ] || ln -s "$@" "$to"
      }
      mkdir -p $out
      for path in $paths; do
        for folder in $folders; do
          [ -d "$path$folder" ] || continue
          find "$path$folder" -type d | while read -r from; do
            linkFolder "$from" "$out''${from#"$path"}"
          done
        done
      done
      ${postBuild}
    '';
  };
  symlinkJoin = { name, paths, postBuild ? "", ... }: buildEnv { inherit name paths postBuild; };
  linkFarm = name: entries:
    runCommand name { } (''
      mkdir -p $out
    '' + lib.concatMapStrings (entry: ''
      mkdir -p "$(dirname $out/${lib.escapeShellArg entry.name})"
      ln -s ${entry.path} $out/${lib.escapeShellArg entry.name}
    '') (if builtins.isAttrs entries then lib.mapAttrsToList (name: path: { inherit name path; }) entries else entries));

  # Fill in @NAME@ in a file, at evaluation.
  fillIn = file: values: builtins.replaceStrings
    (map (name: "@${name}@") (builtins.attrNames values)) (map toString (builtins.attrValues values)) (builtins.readFile file);
}
