# Units. Each is a store path of its own; a folder of links to them is /etc/systemd/system, as one link into the store. What the
# machine's own distribution had there is put aside; its units in /usr/lib stay. With the script (system.switch.rules) they are
# single links in /etc/systemd/system, beside those of the distribution.
{ config, lib, pkgs, ... }:

let
  cfg = config.systemd;
  oneLink = config.system.switch.rules != "script";
  types = lib.types;

  value = types.oneOf [ types.bool types.int types.str types.path ];
  settings = types.attrsOf (types.either value (types.listOf value));
  mkSettings = description: lib.mkOption { type = settings; default = { }; inherit description; };
  mkUnits = description: lib.mkOption { type = types.listOf types.str; default = [ ]; inherit description; };
  mkScript = description: lib.mkOption { type = types.lines; default = ""; inherit description; };
  mkFlag = default: description: lib.mkOption { type = types.bool; inherit default description; };

  # A file in systemd's format: [ { name = "Unit"; settings = { Key = value or list; }; } ].
  render = sections:
    let
      show = v: if builtins.isBool v then lib.boolToString v else toString v;
      line = key: v: lib.concatMapStrings (one: "${key}=${show one}\n") (lib.toList v);
      lines = section: lib.concatStrings (lib.mapAttrsToList line section.settings);
    in
    lib.concatMapStringsSep "\n" (section: "[${section.name}]\n${lines section}")
      (builtins.filter (section: section.settings != { }) sections);

  common = {
    enable = mkFlag true "Whether the unit can be started; false masks it.";
    description = lib.mkOption { type = types.singleLineStr; default = ""; description = "The unit in a few words."; };
    after = mkUnits "Units that are started earlier.";
    before = mkUnits "Units that are started later.";
    requires = mkUnits "Units without which this one cannot run.";
    wants = mkUnits "Units that are started along with this one.";
    bindsTo = mkUnits "Units whose stop stops this one.";
    partOf = mkUnits "Units whose stop and restart are this one's too.";
    conflicts = mkUnits "Units that cannot run beside this one.";
    onFailure = mkUnits "Units that are started when this one fails.";
    wantedBy = mkUnits "Units, mostly targets, that start this one.";
    requiredBy = mkUnits "Units that start this one and fail with it.";
    unitConfig = mkSettings "Lines for [Unit].";
    overrideStrategy = lib.mkOption {
      type = types.enum [ "asDropinIfExists" "asDropin" ];
      default = "asDropinIfExists";
      description = "Whether the text is a unit's file or, with asDropin, something for one that is there, such as a template's.";
    };
    restartTriggers = lib.mkOption { type = types.listOf types.unspecified; default = [ ];
      description = "Anything; the unit is restarted when it changes."; };
    reloadTriggers = lib.mkOption { type = types.listOf types.unspecified; default = [ ];
      description = "Anything; the unit is reloaded when only this changes."; };
  };

  unitSettings = unit:
    let
      nonEmpty = lib.filterAttrs (_: v: v != [ ] && v != "");
    in
    nonEmpty {
      Description = unit.description;
      After = unit.after;
      Before = unit.before;
      Requires = unit.requires;
      Wants = unit.wants;
      BindsTo = unit.bindsTo;
      PartOf = unit.partOf;
      Conflicts = unit.conflicts;
      OnFailure = unit.onFailure;
      X-Restart-Triggers = map toString unit.restartTriggers;
      X-Reload-Triggers = map toString unit.reloadTriggers;
    } // unit.unitConfig;

  serviceOptions = { name, config, ... }:
    let
      # A script of the service, as a program in the store.
      program = which: text: "${pkgs.writeTextFile {
        name = "unit-script-${unitFileName name}-${which}";
        executable = true;
        destination = "/bin/${unitFileName name}-${which}";
        text = "#!${pkgs.runtimeShell}\nset -e\n${text}";
      }}/bin/${unitFileName name}-${which}";
      command = key: which: text: lib.mkIf (text != "") { ${key} = program which text; };
    in
    {
      options = common // {
        serviceConfig = mkSettings "Lines for [Service].";
        environment = lib.mkOption {
          type = types.attrsOf (types.nullOr (types.oneOf [ types.str types.path types.package ]));
          default = { };
          description = "Environment variables.";
        };
        path = lib.mkOption {
          type = types.listOf (types.oneOf [ types.package types.str ]);
          default = [ ];
          description = "Packages whose programs are in PATH, besides the usual ones.";
        };
        script = mkScript "What the service runs, in sh.";
        preStart = mkScript "What runs before it.";
        postStart = mkScript "What runs after it has started.";
        preStop = mkScript "What stops it.";
        postStop = mkScript "What runs after it has stopped.";
        reload = mkScript "What runs instead of a restart when the service is reloaded.";
        startAt = lib.mkOption {
          type = types.coercedTo types.str lib.toList (types.listOf types.str);
          default = [ ];
          example = "hourly";
          description = "When a timer starts it, in systemd.time's format.";
        };
        restartIfChanged = mkFlag true "Whether a switch restarts it when its unit has changed.";
        reloadIfChanged = mkFlag false "Whether a switch reloads it instead of restarting it.";
        stopIfChanged = mkFlag true
          "Whether a switch stops it before activation and starts it after, instead of restarting it after.";
      };
      config = {
        path = [ pkgs.coreutils pkgs.findutils pkgs.gnugrep pkgs.gnused pkgs.systemd ];
        environment.PATH = lib.mkDefault "${lib.concatMapStringsSep ":" (package: "${package}/bin") config.path}";
        serviceConfig = lib.mkMerge [
          (command "ExecStart" "start" config.script)
          (command "ExecStartPre" "pre-start" config.preStart)
          (command "ExecStartPost" "post-start" config.postStart)
          (command "ExecStop" "pre-stop" config.preStop)
          (command "ExecStopPost" "post-stop" config.postStop)
          (command "ExecReload" "reload" config.reload)
        ];
      };
    };

  sectionOptions = key: description: {
    options = common // { ${key} = mkSettings description; };
  };

  serviceText = service: render [
    { name = "Unit"; settings = unitSettings service; }
    {
      name = "Service";
      settings = {
        Environment = lib.mapAttrsToList (name: v: builtins.toJSON "${name}=${v}")
          (lib.filterAttrs (_: v: v != null) service.environment);
      } // lib.optionalAttrs service.reloadIfChanged { X-ReloadIfChanged = true; }
        // lib.optionalAttrs (!service.restartIfChanged) { X-RestartIfChanged = false; }
        // lib.optionalAttrs (!service.stopIfChanged) { X-StopIfChanged = false; }
        // service.serviceConfig;
    }
  ];
  sectionText = section: key: unit: render [
    { name = "Unit"; settings = unitSettings unit; }
    { name = section; settings = unit.${key}; }
  ];

  toUnits = suffix: text: lib.mapAttrs' (name: unit: lib.nameValuePair "${name}.${suffix}" {
    inherit (unit) enable wantedBy requiredBy overrideStrategy;
    text = text unit;
  });

  unitFileName = builtins.replaceStrings [ "@" ":" "\\" ] [ "-" "-" "-" ];

  # The unit's file, or /dev/null, which is how systemd is told that a unit may not run.
  fileOf = name: unit:
    if !unit.enable then "/dev/null"
    else "${pkgs.writeTextFile {
      name = "unit-${unitFileName name}";
      inherit (unit) text;
      destination = "/${name}";
    }}/${name}";

  etcOf = name: unit:
    let
      file = fileOf name unit;
      link = kind: target: lib.nameValuePair "systemd/system/${target}.${kind}/${name}" { source = file; };
    in
    { "systemd/system/${name}".source = file; }
    // lib.optionalAttrs unit.enable (builtins.listToAttrs
      (map (link "wants") unit.wantedBy ++ map (link "requires") unit.requiredBy));

  # A folder of units: each under its name, or as a drop-in, and links beside those that start them. systemd's own are there too.
  folderOf = name: units: upstream: more: pkgs.runCommand name { } (''
    mkdir -p $out
    cd $out
    ln -s ${upstream}/* .
  '' + lib.concatStrings (lib.mapAttrsToList placed units) + more);
  placed = name: unit:
    let
      link = kind: target: ''
        mkdir -p ${target}.${kind}
        ln -s ../${name} ${target}.${kind}/
      '';
      quoted = lib.escapeShellArg name;
    in
    (if unit.overrideStrategy == "asDropin" then ''
      mkdir -p ${quoted}.d
      ln -s ${fileOf name unit} ${quoted}.d/overrides.conf
    '' else ''
      if [ -e ${quoted} ] && [ ${fileOf name unit} != /dev/null ]; then
        mkdir -p ${quoted}.d
        ln -s ${fileOf name unit} ${quoted}.d/overrides.conf
      else
        ln -sfn ${fileOf name unit} ${quoted}
      fi
    '') + lib.optionalString unit.enable (lib.concatStrings
      (map (link "wants") unit.wantedBy ++ map (link "requires") unit.requiredBy));

  unitOption = {
    options = {
      inherit (common) enable wantedBy requiredBy overrideStrategy;
      text = lib.mkOption { type = types.lines; default = ""; description = "The unit's file."; };
    };
  };
  mkMany = module: description: lib.mkOption {
    type = types.attrsOf (types.submodule module);
    default = { };
    inherit description;
  };
in
{
  options.systemd = {
    units = mkMany unitOption "Units by full name, as text.";
    services = mkMany serviceOptions "Services.";
    timers = mkMany (sectionOptions "timerConfig" "Lines for [Timer].") "Timers.";
    sockets = mkMany (sectionOptions "socketConfig" "Lines for [Socket].") "Sockets.";
    paths = mkMany (sectionOptions "pathConfig" "Lines for [Path].") "Paths that are watched.";
    targets = mkMany (sectionOptions "targetConfig" "Nothing.") "Targets.";
    mounts = mkMany (sectionOptions "mountConfig" "Lines for [Mount].") "Mounts by their unit's name, without its suffix.";
    slices = mkMany (sectionOptions "sliceConfig" "Lines for [Slice].") "Slices.";
    extraConfig = lib.mkOption { type = types.lines; default = ""; description = "Lines of [Manager] in system.conf."; };
    user = {
      units = mkMany unitOption "Units of users' own managers by full name, as text.";
      services = mkMany serviceOptions "Services of users' own managers.";
      timers = mkMany (sectionOptions "timerConfig" "Lines for [Timer].") "Timers of users' own managers.";
      targets = mkMany (sectionOptions "targetConfig" "Nothing.") "Targets of users' own managers.";
    };
    tmpfiles.rules = lib.mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "d /var/lib/app 0755 app app -" ];
      description = "Lines in tmpfiles.d's format.";
    };
    package = lib.mkOption { type = types.package; default = pkgs.systemd; description = "Programs of the machine's systemd."; };
  };

  config = {
    systemd.timers = builtins.mapAttrs
      (_: service: { wantedBy = [ "timers.target" ]; timerConfig.OnCalendar = service.startAt; })
      (lib.filterAttrs (_: service: service.enable && service.startAt != [ ]) cfg.services);

    # What NixOS says of systemd's own targets, and those that it adds.
    systemd.targets = lib.mkIf oneLink {
      local-fs.unitConfig.X-StopOnReconfiguration = true;
      remote-fs.unitConfig.X-StopOnReconfiguration = true;
      keys = { description = "Security Keys"; unitConfig.X-StopOnReconfiguration = true; };
      sysinit-reactivation.description = "Reactivate sysinit units";
    };

    # What NixOS runs again at each switch that changes the rules.
    systemd.services.systemd-tmpfiles-resetup = lib.mkIf (oneLink && cfg.tmpfiles.rules != [ ]) {
      description = "Re-setup tmpfiles on a system that is already running.";
      requiredBy = [ "sysinit-reactivation.target" ];
      after = [ "local-fs.target" "systemd-journald.service" ];
      before = [ "sysinit-reactivation.target" "shutdown.target" ];
      conflicts = [ "shutdown.target" ];
      restartTriggers = [ config.environment.etc."tmpfiles.d/nixos.conf".source ];
      unitConfig.DefaultDependencies = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${pkgs.systemd}/bin/systemd-tmpfiles --create --remove --exclude-prefix=/dev /etc/tmpfiles.d/nixos.conf";
        SuccessExitStatus = "DATAERR CANTCREAT";
      };
    };

    systemd.units = lib.mkMerge [
      (toUnits "service" serviceText cfg.services)
      (toUnits "timer" (sectionText "Timer" "timerConfig") cfg.timers)
      (toUnits "socket" (sectionText "Socket" "socketConfig") cfg.sockets)
      (toUnits "path" (sectionText "Path" "pathConfig") cfg.paths)
      (toUnits "target" (sectionText "Target" "targetConfig") cfg.targets)
      (toUnits "mount" (sectionText "Mount" "mountConfig") cfg.mounts)
      (toUnits "slice" (sectionText "Slice" "sliceConfig") cfg.slices)
    ];

    systemd.user.units = lib.mkMerge [
      (toUnits "service" serviceText cfg.user.services)
      (toUnits "timer" (sectionText "Timer" "timerConfig") cfg.user.timers)
      (toUnits "target" (sectionText "Target" "targetConfig") cfg.user.targets)
    ];

    environment.etc = lib.mkMerge ((if oneLink then [ ] else lib.mapAttrsToList etcOf cfg.units) ++ [
      (lib.mkIf oneLink {
        # Nix's daemon is the distribution's.
        "systemd/system" = { replace = true; source = folderOf "system-units" cfg.units "${cfg.package}/example/systemd/system" ''
          mkdir -p sockets.target.wants
          ln -s /usr/lib/systemd/system/nix-daemon.socket sockets.target.wants/
        ''; };
        "systemd/user" = { replace = true; source = folderOf "user-units" cfg.user.units "${cfg.package}/example/systemd/user" ""; };
        "systemd/system.conf" = { replace = true; text = "[Manager]\n${cfg.extraConfig}"; };
      })
      (lib.mkIf (cfg.tmpfiles.rules != [ ]) { "tmpfiles.d/nixos.conf".text = lib.concatLines cfg.tmpfiles.rules; })
    ]);
  };
}
