# The OpenSSH server: NixOS's unit and its configuration, with the program of the machine's own distribution.
{ config, lib, pkgs, ... }:

let
  cfg = config.services.openssh;
  oneLink = config.system.switch.rules != "script";
  types = lib.types;

  # Values that are lists: those of users and groups with spaces between, those of algorithms with commas.
  show = key: value:
    if value == true then "yes" else if value == false then "no"
    else if !builtins.isList value then toString value
    else builtins.concatStringsSep (if builtins.match "(Allow|Deny)(Users|Groups)" key == null then "," else " ") value;
  settings = lib.concatStrings (lib.mapAttrsToList (key: value: "${key} ${show key value}\n")
    (lib.filterAttrs (_: value: value != null) cfg.settings));

  keysOf = user: user.openssh.authorizedKeys.keys
    ++ map (file: lib.removeSuffix "\n" (builtins.readFile file)) user.openssh.authorizedKeys.keyFiles;
  withKeys = builtins.filter (user: keysOf user != [ ]) (builtins.attrValues config.users.users);

  file = config.environment.etc."ssh/sshd_config".source;
  # Tests and the machine's own distribution have more options there.
  common = {
    EnvironmentFile = "-/etc/default/ssh";
    KillMode = "process";
    RuntimeDirectory = "sshd";
    RuntimeDirectoryPreserve = true;
  };
  service = {
    description = "SSH Daemon";
    after = [ "network.target" ];
    stopIfChanged = false;
    serviceConfig = common // {
      Type = "notify";
      ExecStart = "/usr/sbin/sshd -D -f /etc/ssh/sshd_config $SSHD_OPTS";
      Restart = "always";
    };
    wantedBy = [ "multi-user.target" ];
    restartTriggers = [ file ];
  };
  perConnection = {
    description = "SSH per-connection Daemon";
    after = [ "network.target" "sshd.socket" ];
    stopIfChanged = false;
    serviceConfig = common // {
      ExecStart = "-/usr/sbin/sshd -i -f /etc/ssh/sshd_config $SSHD_OPTS";
      StandardInput = "socket";
      StandardError = "journal";
    };
  };
in
{
  options.services.openssh = {
    enable = lib.mkEnableOption "the OpenSSH server";
    startWhenNeeded = lib.mkOption {
      type = types.bool;
      default = false;
      description = "Whether systemd listens, and starts an sshd for each connection.";
    };
    ports = lib.mkOption {
      type = types.listOf types.port;
      default = [ 22 ];
      description = "The ports that it listens on.";
    };
    listenAddresses = lib.mkOption {
      type = types.listOf (types.submodule {
        options = {
          addr = lib.mkOption { type = types.str; description = "The address."; };
          port = lib.mkOption { type = types.nullOr types.port; default = null; description = "The port; null means `ports`."; };
        };
      });
      default = [ ];
      description = "The addresses that it listens on; none means all.";
    };
    authorizedKeysInHomedir = lib.mkOption {
      type = types.bool;
      default = true;
      description = "Whether users may add keys themselves, in ~/.ssh/authorized_keys.";
    };
    authorizedKeysFiles = lib.mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Files with the keys that may log in.";
    };
    settings = lib.mkOption {
      type = types.attrsOf (types.nullOr (types.oneOf [ types.bool types.int types.str (types.listOf types.str) ]));
      default = { };
      example = { PasswordAuthentication = false; AllowUsers = [ "alice" ]; };
      description = "Lines of sshd_config.";
    };
    extraConfig = lib.mkOption { type = types.lines; default = ""; description = "Text at the end of the file."; };
  };

  config = {
    services.openssh = {
      settings = builtins.mapAttrs (_: lib.mkDefault) {
        GatewayPorts = "no";
        KbdInteractiveAuthentication = true;
        LogLevel = "INFO";
        PasswordAuthentication = true;
        PermitRootLogin = "prohibit-password";
        PrintMotd = false;
        StrictModes = true;
        UseDns = false;
        UsePAM = true;
        X11Forwarding = false;
      };
      authorizedKeysFiles = lib.optional cfg.authorizedKeysInHomedir "%h/.ssh/authorized_keys" ++ [ "/etc/ssh/authorized_keys.d/%u" ];
    };

    environment.etc = lib.mkIf cfg.enable (lib.mkMerge [
      {
        "ssh/sshd_config" = {
          replace = true;
          text = ''
            ${settings}Banner none

            AddressFamily any
            ${lib.concatMapStrings (port: "Port ${toString port}\n") cfg.ports}
            ${lib.concatMapStrings
              (a: "ListenAddress ${a.addr}${lib.optionalString (a.port != null) ":${toString a.port}"}\n") cfg.listenAddresses}
            Subsystem sftp /usr/lib/openssh/sftp-server
            AuthorizedKeysFile ${toString cfg.authorizedKeysFiles}
            HostKey /etc/ssh/ssh_host_ed25519_key
            ${cfg.extraConfig}
          '';
        };
      }
      # The distribution has a link there, to its own unit.
      (lib.mkIf (!oneLink && !cfg.startWhenNeeded) { "systemd/system/sshd.service".replace = true; })
      (builtins.listToAttrs (map (user: lib.nameValuePair "ssh/authorized_keys.d/${user.name}" {
        # A copy: sshd refuses a key file that the group of the store could write.
        mode = "0444";
        text = lib.concatLines (keysOf user);
      }) withKeys))
    ]);

    # The distribution's unit never runs beside NixOS's, nor where there is to be none. A switch leaves alone what is not its own.
    system.activationScripts.distributionSshd = lib.optionalString oneLink ''
      if [ -d /run/systemd/system ] && [ ! -L /etc/systemd/system ] && systemctl --quiet is-active ssh.service; then
        systemctl stop ssh.service
      fi
    '';
    system.activationScripts.etc.deps = [ "distributionSshd" ];
    systemd = lib.mkMerge [
      { units."ssh.service".enable = false; }
      (lib.mkIf (cfg.enable && !cfg.startWhenNeeded) { services.sshd = service; })
      (lib.mkIf (cfg.enable && cfg.startWhenNeeded) {
        services."sshd@" = perConnection;
        sockets.sshd = {
          description = "SSH Socket";
          wantedBy = [ "sockets.target" ];
          socketConfig = {
            Accept = true;
            ListenStream = if cfg.listenAddresses == [ ] then cfg.ports
              else map (a: "${a.addr}:${toString (if a.port != null then a.port else 22)}") cfg.listenAddresses;
          };
        };
      })
    ];
  };
}
