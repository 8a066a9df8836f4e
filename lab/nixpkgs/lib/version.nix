# The version of this tree, from the same files that nixpkgs reads it from: `.version`, `.version-suffix` (a channel
# has it, nixos-rebuild writes it), `.git-revision` (likewise), or `.git` of a checkout.
{ lib }:

let
  root = ./..;
  contents = file: lib.fileContents (root + "/${file}");
  present = file: builtins.pathExists (root + "/${file}");

  # The commit that a `.git` folder has checked out, or null. A ref is a file of its own or a line of packed-refs.
  commitOfGit =
    let
      git = root + "/.git";
      head = lib.fileContents (git + "/HEAD");
      ref = builtins.match "ref: (.*)" head;
      name = builtins.head ref;
      packed = builtins.filter builtins.isList
        (builtins.split "([0-9a-f]{40}) ${lib.escapeRegex name}\n" (builtins.readFile (git + "/packed-refs")));
    in
    if !builtins.pathExists (git + "/HEAD") then null
    else if ref == null then head
    else if builtins.pathExists (git + "/${name}") then lib.fileContents (git + "/${name}")
    else if builtins.pathExists (git + "/packed-refs") && packed != [ ] then builtins.head (builtins.head packed)
    else null;

  revision = if present ".git-revision" then contents ".git-revision" else commitOfGit;
in
rec {
  release = contents ".version";
  versionSuffix =
    if present ".version-suffix" then contents ".version-suffix"
    else if commitOfGit != null then ".git.${builtins.substring 0 7 commitOfGit}"
    else "pre-git";
  version = release + versionSuffix;
  codeName = "Stand-in";
  revisionWithDefault = default: if revision == null then default else revision;
}
