# Who may become root, as the file of the machine's own sudo.
{ config, lib, ... }:

let
  cfg = config.security.sudo;
  types = lib.types;
  mk = type: default: description: lib.mkOption { inherit type default description; };

  commandOptions = {
    options = {
      command = mk types.str "" "The program, with its arguments or without any; ALL is every program.";
      options = mk (types.listOf types.str) [ ] "NOPASSWD, SETENV and their like.";
    };
  };
  ruleOptions = {
    options = {
      users = mk (types.listOf (types.either types.str types.int)) [ ] "Users that it is for, by name or number.";
      groups = mk (types.listOf (types.either types.str types.int)) [ ] "Groups whose members it is for.";
      host = mk types.str "ALL" "The machine that it holds on.";
      runAs = mk types.str "ALL:ALL" "Who they may become.";
      commands = mk (types.listOf (types.either types.str (types.submodule commandOptions))) [ ] "What they may run.";
    };
  };

  who = prefix: one: if builtins.isInt one then "${prefix}#${toString one}" else "${prefix}${one}";
  command = c:
    if builtins.isString c then c
    else "${lib.concatMapStrings (option: "${option}:") c.options}${lib.optionalString (c.options != [ ]) " "}${c.command}";
  rule = r: lib.concatMapStrings
    (one: "${one}     ${r.host}=(${r.runAs})    ${lib.concatMapStringsSep ", " command r.commands}\n")
    (map (who "") r.users ++ map (who "%") r.groups);
  everything = options: [ { command = "ALL"; inherit options; } ];
in
{
  options.security.sudo = {
    enable = mk types.bool true "Whether there is a sudo that works.";
    wheelNeedsPassword = mk types.bool true "Whether members of the group wheel give their password.";
    extraRules = lib.mkOption {
      type = types.listOf (types.submodule ruleOptions);
      default = [ ];
      example = [ { users = [ "alice" ]; commands = [ { command = "ALL"; options = [ "NOPASSWD" ]; } ]; } ];
      description = "Rules; of those that fit, the last one holds.";
    };
    extraConfig = mk types.lines "" "Text at the end of the file.";
  };

  config = {
    security.sudo.extraRules = lib.mkBefore [
      { users = [ "root" ]; commands = everything [ "SETENV" ]; }
      { groups = [ "wheel" ]; commands = everything (lib.optional (!cfg.wheelNeedsPassword) "NOPASSWD" ++ [ "SETENV" ]); }
    ];

    environment.etc.sudoers = lib.mkIf cfg.enable {
      mode = "0440";
      replace = true;
      text = ''
        # Don't edit this file. Set the NixOS option ‘security.sudo.extraRules’ instead.

        # The machine's own rules; those of the system hold against them.
        @includedir /etc/sudoers.d

        ${lib.concatMapStrings rule cfg.extraRules}
        ${cfg.extraConfig}
      '';
    };

    # On NixOS it is found in the wrappers or nowhere; here it works or not.
    system.activationScripts.wrappers.text = ''
      [ ! -e /usr/bin/sudo ] || chmod u${if cfg.enable then "+" else "-"}s /usr/bin/sudo
    '';
  };
}
