# The machine's own sshd: whether it runs, where it listens, and the keys that the configuration gives to users.
{ config, lib, ... }:

let
  cfg = config.services.openssh;

  show = value: if value == true then "yes" else if value == false then "no" else toString value;
  text = ''
    ${lib.concatMapStringsSep "\n" (port: "Port ${toString port}") cfg.ports}
    AuthorizedKeysFile %h/.ssh/authorized_keys /etc/ssh/authorized_keys.d/%u
    ${lib.concatStrings (lib.mapAttrsToList (key: value: "${key} ${show value}\n") cfg.settings)}${cfg.extraConfig}
  '';

  users = lib.filterAttrs (_: user: user.openssh.authorizedKeys.keys != [ ]) config.users.users;
in
{
  options = {
    services.openssh = {
      enable = lib.mkEnableOption "the OpenSSH server";
      ports = lib.mkOption {
        type = lib.types.listOf lib.types.port;
        default = [ 22 ];
        description = "The ports that it listens on.";
      };
      settings = lib.mkOption {
        type = lib.types.attrsOf (lib.types.oneOf [ lib.types.bool lib.types.int lib.types.str ]);
        default = { };
        example = { PasswordAuthentication = false; };
        description = "Lines of sshd_config.";
      };
      extraConfig = lib.mkOption { type = lib.types.lines; default = ""; description = "Text at the end of the file."; };
    };
  };

  config = {
    environment.etc = lib.mkMerge [
      (lib.mkIf cfg.enable { "ssh/sshd_config.d/10-nixos.conf".text = text; })
      (lib.mapAttrs' (name: user: lib.nameValuePair "ssh/authorized_keys.d/${name}" {
        # A copy: sshd refuses a key file that the group of the store could write.
        mode = "0444";
        text = lib.concatLines user.openssh.authorizedKeys.keys;
      }) users)
      (lib.mkIf cfg.enable {
        # The unit is the distribution's. What is in the drop-in makes a switch restart it when its configuration changes.
        "systemd/system/ssh.service.d/overrides.conf".text = ''
          [Unit]
          X-Restart-Triggers=${builtins.hashString "sha256" text}
          [Service]
          X-StopIfChanged=false
        '';
        "systemd/system/multi-user.target.wants/ssh.service".source = "/lib/systemd/system/ssh.service";
      })
    ];
    systemd.units = lib.mkIf (!cfg.enable) { "ssh.service".enable = false; };
  };
}
