# The machine's name.
{ config, lib, ... }:

let
  cfg = config.networking;
in
{
  options.networking = {
    hostName = lib.mkOption {
      type = lib.types.strMatching "|[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?";
      default = "nixos";
      description = "The name of the machine; empty leaves the name that it has.";
    };
  };

  config = {
    environment.etc = lib.mkIf (cfg.hostName != "") {
      hostname = { text = "${cfg.hostName}\n"; replace = true; };
      # sudo asks for the machine's own name.
      hosts = { text = "127.0.0.1 localhost\n::1 localhost\n127.0.0.2 ${cfg.hostName}\n"; replace = true; };
    };
    system.activationScripts.hostname.text = lib.optionalString (cfg.hostName != "") ''
      hostname ${lib.escapeShellArg cfg.hostName}
    '';
  };
}
