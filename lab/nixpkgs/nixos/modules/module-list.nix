# Every module of a system. A new module is added here.
[
  ./config/networking.nix
  ./config/system-path.nix
  ./config/users.nix
  ./misc/assertions.nix
  ./misc/nixpkgs.nix
  ./misc/version.nix
  ./security/sudo.nix
  ./services/openssh.nix
  ./system/activation.nix
  ./system/boot-loader.nix
  ./system/etc.nix
  ./system/specialisation.nix
  ./system/switch.nix
  ./system/systemd.nix
  ./system/top-level.nix
]
