# Who may become root, as a file of the machine's own sudo.
{ config, lib, ... }:

let
  cfg = config.security.sudo;

  command = c:
    if builtins.isString c then c
    else "${lib.concatMapStrings (option: "${option}:") (c.options or [ ])} ${c.command}";
  rule = r: lib.concatMapStrings
    (who: "${who} ${r.host or "ALL"}=(${r.runAs or "ALL:ALL"}) ${lib.concatMapStringsSep ", " command (r.commands or [ "ALL" ])}\n")
    (r.users or [ ] ++ map (group: "%${group}") (r.groups or [ ]));
in
{
  options.security.sudo = {
    enable = lib.mkOption { type = lib.types.bool; default = true; description = "Whether sudo has rules of the system."; };
    wheelNeedsPassword = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether members of the group wheel give their password.";
    };
    extraRules = lib.mkOption {
      type = lib.types.listOf lib.types.attrs;
      default = [ ];
      example = [ { users = [ "alice" ]; commands = [ { command = "ALL"; options = [ "NOPASSWD" ]; } ]; } ];
      description = "Rules: users, groups, commands, and optionally host and runAs.";
    };
    extraConfig = lib.mkOption { type = lib.types.lines; default = ""; description = "Text at the end of the file."; };
  };

  config.environment.etc."sudoers.d/nixos" = lib.mkIf cfg.enable {
    mode = "0440";
    text = ''
      %wheel ALL=(ALL:ALL) ${lib.optionalString (!cfg.wheelNeedsPassword) "NOPASSWD:"}SETENV: ALL
      ${lib.concatMapStrings rule cfg.extraRules}${cfg.extraConfig}
    '';
  };
}
