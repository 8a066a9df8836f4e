# Addresses that the configuration gives to interfaces, as NixOS without networkd does it: a unit for each interface, which takes
# away what it gave when it stops, and one for what they have in common. The other interfaces are services/dhcpcd.nix's.
{ config, lib, pkgs, ... }:

let
  cfg = config.networking;
  types = lib.types;
  mk = type: default: description: lib.mkOption { inherit type default description; };

  addressOptions = {
    options = {
      address = lib.mkOption { type = types.str; description = "The address."; };
      prefixLength = lib.mkOption { type = types.ints.between 0 32; description = "How many of its bits are the network's."; };
    };
  };
  interfaceOptions = { name, ... }: {
    options = {
      name = mk types.str name "The interface's name.";
      ipv4.addresses = mk (types.listOf (types.submodule addressOptions)) [ ] "Addresses that it has.";
    };
  };
  gatewayOptions = {
    options = {
      address = lib.mkOption { type = types.str; description = "The gateway's address."; };
      interface = mk (types.nullOr types.str) null "The interface it is behind; null lets the kernel find out.";
      metric = mk (types.nullOr types.int) null "The route's metric.";
    };
  };

  interfaces = builtins.filter (i: i.ipv4.addresses != [ ]) (builtins.attrValues cfg.interfaces);
  used = interfaces != [ ] || cfg.defaultGateway != null || cfg.localCommands != "";
  unitOf = i: "network-addresses-${i.name}";

  oneshot = { Type = "oneshot"; RemainAfterExit = true; };
  path = [ pkgs.iproute2 ];

  addressesOf = i: lib.nameValuePair (unitOf i) {
    description = "Address configuration of ${i.name}";
    wantedBy = [ "network-setup.service" "network.target" ];
    before = [ "network-setup.service" ];
    after = [ "network-pre.target" ];
    serviceConfig = oneshot;
    # Stopped during the whole activation, it would take the connection away that the switch was asked for over.
    stopIfChanged = false;
    inherit path;
    script = ''
      state=/run/nixos/network/addresses/${i.name}
      mkdir -p "''${state%/*}"
      ip link set dev ${i.name} up
    '' + lib.concatMapStrings (a: ''
      echo "adding address ${a.address}/${toString a.prefixLength}..."
      echo ${a.address}/${toString a.prefixLength} >>"$state"
      ip addr replace ${a.address}/${toString a.prefixLength} dev ${i.name}
    '') i.ipv4.addresses;
    preStop = ''
      state=/run/nixos/network/addresses/${i.name}
      [ -e "$state" ] || exit 0
      while read -r address; do
        echo "deleting address $address..."
        ip addr del "$address" dev ${i.name} || true
      done <"$state"
      rm -f "$state"
    '';
  };

  metric = lib.optionalString (cfg.defaultGateway.metric != null) "metric ${toString cfg.defaultGateway.metric} ";
  device = lib.optionalString (cfg.defaultGateway.interface != null) " dev ${cfg.defaultGateway.interface}";
in
{
  options.networking = {
    interfaces = mk (types.attrsOf (types.submodule interfaceOptions)) { } "What interfaces there are, by name.";
    defaultGateway = lib.mkOption {
      type = types.nullOr (types.coercedTo types.str (address: { inherit address; }) (types.submodule gatewayOptions));
      default = null;
      example = { address = "192.0.2.1"; interface = "host0"; };
      description = "Where packets go that no other route is for.";
    };
    localCommands = lib.mkOption {
      type = types.lines;
      default = "";
      example = "ip route add blackhole 192.0.2.0/24";
      description = "Commands at the end of the network's setup. Nothing undoes them, but a reboot.";
    };
  };

  config.systemd.services = builtins.listToAttrs (map addressesOf interfaces) // lib.optionalAttrs used {
    network-setup = {
      description = "Networking Setup";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network.target" ];
      before = [ "network.target" ];
      after = [ "network-pre.target" ];
      # An address that goes takes the routes along that depend on it.
      partOf = map (i: "${unitOf i}.service") interfaces;
      serviceConfig = oneshot;
      inherit path;
      script = lib.optionalString (cfg.defaultGateway != null) (
        lib.optionalString (cfg.defaultGateway.interface != null) ''
          ip route replace ${cfg.defaultGateway.address} ${metric}proto static${device}
        '' + ''
          ip route replace default ${metric}proto static via ${cfg.defaultGateway.address}${device}
        '') + "true\n";
    };
  } // lib.optionalAttrs (cfg.localCommands != "") {
    network-local-commands = {
      description = "Extra networking commands";
      wantedBy = [ "network.target" ];
      before = [ "network.target" ];
      after = [ "network-pre.target" "network-setup.service" ];
      bindsTo = [ "network-setup.service" ];
      serviceConfig = oneshot;
      inherit path;
      script = cfg.localCommands;
    };
  };
}
