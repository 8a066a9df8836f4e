# A package set of two, which stand for this machine's own shell and tools. Nothing here works in a sandbox.
{ system }:
let
  script =
    name: text: attributes:
    derivation (
      {
        inherit name system;
        builder = "/bin/sh";
        args = [
          "-euc"
          text
        ];
        PATH = "/usr/bin:/bin";
      }
      // attributes
    );
in
{
  inherit script;
  bash = script "bash" "mkdir -p $out/bin; ln -s /bin/sh $out/bin/sh" { };
  coreutils = script "coreutils" "mkdir -p $out; ln -s /usr/bin $out/bin" { };
}
