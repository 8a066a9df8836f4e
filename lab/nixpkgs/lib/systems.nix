# What is known about a platform, from its system string or from an attribute set that has one.
let
  known = {
    x86_64-linux = { config = "x86_64-unknown-linux-gnu"; linuxArch = "x86_64"; };
    aarch64-linux = { config = "aarch64-unknown-linux-gnu"; linuxArch = "arm64"; };
  };

  bySystem = system:
    let
      parts = builtins.match "([^-]+)-([^-]+)" system;
      cpu = builtins.elemAt parts 0;
      kernel = builtins.elemAt parts 1;
    in
    if parts == null then throw "Unknown system `${system}'" else {
      inherit system;
      config = known.${system}.config or "${cpu}-unknown-${kernel}-gnu";
      linuxArch = known.${system}.linuxArch or cpu;
      parsed = { cpu.name = cpu; kernel.name = kernel; };
      isLinux = kernel == "linux";
      isx86_64 = cpu == "x86_64";
      isAarch64 = cpu == "aarch64";
    };

  systemOfConfig = config:
    let
      found = builtins.filter (name: known.${name}.config == config) (builtins.attrNames known);
    in
    if found == [ ] then throw "No system is known for `${config}'" else builtins.head found;
in
rec {
  # The platform that a string ("aarch64-linux") or a set ({ system = …; } or { config = "aarch64-unknown-linux-gnu"; })
  # stands for.
  elaborate = platform:
    if builtins.isString platform then bySystem platform
    else if platform ? system then bySystem platform.system
    else bySystem (systemOfConfig platform.config);

  equals = a: b: (elaborate a).system == (elaborate b).system;

  examples.aarch64-multiplatform.config = "aarch64-unknown-linux-gnu";
}
