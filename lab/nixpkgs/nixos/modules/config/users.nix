# Users and groups. What the machine's distribution has stays; what the system declares is made, and removed again when the
# system no longer declares it. Where users are not mutable, people whom no system declares go too.
{ config, lib, pkgs, ... }:

let
  cfg = config.users;
  types = lib.types;
  mk = type: default: description: lib.mkOption { inherit type default description; };

  userOptions = { name, config, ... }: {
    options = {
      name = mk types.str name "The user's name.";
      description = mk types.singleLineStr "" "The user's full name.";
      uid = mk (types.nullOr types.int) null "The user's number; null takes a free one.";
      isNormalUser = mk types.bool false "Whether it is a person's: with a home and a shell.";
      isSystemUser = mk types.bool false "Whether it is a service's.";
      group = mk types.str "" "The main group.";
      extraGroups = mk (types.listOf types.str) [ ] "Further groups.";
      home = mk types.str (if config.isNormalUser then "/home/${config.name}" else "/var/empty") "The home folder.";
      createHome = mk types.bool config.isNormalUser "Whether to make it.";
      shell = mk (types.nullOr (types.either types.package types.str)) null
        "The login shell; null is the distribution's for a new user, and leaves an existing user's.";
      hashedPassword = mk (types.nullOr types.str) null
        "The password as a hash, set when the user is made, or always if users are not mutable.";
      hashedPasswordFile = mk (types.nullOr types.str) null "A file of the target with the password as a hash, read at each activation.";
      initialHashedPassword = mk (types.nullOr types.str) null "The hash for a new user.";
      initialPassword = mk (types.nullOr types.str) null "The password for a new user. Anybody can read it in the store.";
      openssh.authorizedKeys.keys = mk (types.listOf types.singleLineStr) [ ] "Keys that may log in as the user.";
      openssh.authorizedKeys.keyFiles = mk (types.listOf types.path) [ ] "Files with more of them.";
      autoSubUidGidRange = mk types.bool config.isNormalUser "Whether to give the user numbers for containers.";
      packages = mk (types.listOf types.package) [ ] "Packages for the user; everybody gets them here.";
    };
    config.group = lib.mkIf config.isNormalUser (lib.mkDefault "users");
  };

  groupOptions = { name, ... }: {
    options = {
      name = mk types.str name "The group's name.";
      gid = mk (types.nullOr types.int) null "The group's number; null takes a free one.";
      members = mk (types.listOf types.str) [ ] "Users in it, besides those whose group or extraGroups name it.";
    };
  };

  users = builtins.attrValues cfg.users;
  groups = builtins.attrValues cfg.groups;

  shellOf = user:
    if user.shell == null then "" else if lib.isDerivation user.shell
    then "${user.shell}${user.shell.shellPath or "/bin/sh"}" else user.shell;
  membersOf = group: lib.unique (group.members
    ++ map (user: user.name) (builtins.filter (user: builtins.elem group.name user.extraGroups) users));
  orElse = value: default: if value == null then default else value;

  # One line a user or group, for users.sh: fields separated by a character that none of them may have. A hash that is declared
  # begins with a sign, because it may be empty.
  fields = lib.concatMapStringsSep "|" toString;
  groupLine = group: fields [ group.name (orElse group.gid "") (builtins.concatStringsSep "," (membersOf group)) ];
  hash = value: if value == null then "" else "=${value}";
  userLine = user: fields [
    user.name
    (orElse user.uid "")
    user.group
    user.home
    (if user.createHome then "yes" else "no")
    (shellOf user)
    (if user.isNormalUser then "normal" else "system")
    (if user.hashedPasswordFile != null then "file:${user.hashedPasswordFile}" else hash user.hashedPassword)
    (if user.initialPassword != null then "plain:${user.initialPassword}" else hash user.initialHashedPassword)
    (if user.autoSubUidGidRange then "yes" else "no")
    user.description
  ];

  # What NixOS's own activation reads, so that users and groups can be found in a toplevel. Lines are easier to read for sh.
  spec = pkgs.writeText "users-groups.json" (builtins.toJSON {
    inherit (cfg) mutableUsers;
    users = map (user: {
      inherit (user) name uid group description home createHome isSystemUser hashedPassword hashedPasswordFile initialHashedPassword initialPassword
        autoSubUidGidRange;
      shell = let shell = shellOf user; in if shell == "" then null else shell;
    }) users;
    groups = map (group: { inherit (group) name gid; members = membersOf group; }) groups;
  });

  ensure = pkgs.writeScript "update-users-groups" (pkgs.fillIn ./users.sh { shell = pkgs.runtimeShell; rules = "${./users.awk}"; });
  linesOf = name: lines: pkgs.writeText name (lib.concatLines lines);
in
{
  options.users = {
    mutableUsers = mk types.bool true "Whether users, and passwords, that were set up by hand stay.";
    users = mk (types.attrsOf (types.submodule userOptions)) { } "Users.";
    groups = mk (types.attrsOf (types.submodule groupOptions)) { } "Groups.";
  };

  config = {
    users.users.root = { uid = 0; group = "root"; home = "/root"; description = "System administrator"; };
    users.groups = { root.gid = 0; users.gid = 100; wheel = { }; };
    environment.systemPackages = builtins.concatMap (user: user.packages) users;

    assertions = map
      (user: {
        assertion = user.group != "" && (user.isNormalUser != user.isSystemUser || user.name == "root");
        message = "users.users.${user.name} needs a group, and exactly one of isSystemUser and isNormalUser must be set.";
      })
      (builtins.filter (user: user.name != "root") users);

    system.activationScripts.groups = "";
    system.activationScripts.users.text = ''
      ${ensure} ${spec} ${linesOf "groups" (map groupLine groups)} ${linesOf "users" (map userLine users)} ${
        if cfg.mutableUsers then "mutable" else "immutable"}
    '';
  };
}
