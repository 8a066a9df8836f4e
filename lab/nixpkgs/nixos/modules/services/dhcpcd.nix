# Addresses that the network gives, for interfaces whose own the configuration does not name. In the lab they are known
# beforehand: /etc/lab/lease has them, and a service under the name of NixOS's DHCP client takes them from there.
{ config, lib, pkgs, ... }:

let
  cfg = config.networking;
  static = builtins.filter (i: i.ipv4.addresses != [ ]) (builtins.attrValues cfg.interfaces);
  denied = map (i: i.name) static;
in
{
  options.networking.useDHCP = lib.mkOption {
    type = lib.types.bool;
    default = true;
    description = "Whether interfaces without addresses of their own ask the network for one.";
  };

  config.systemd.services = lib.optionalAttrs cfg.useDHCP {
    dhcpcd = {
      description = "DHCP Client";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network.target" ];
      before = [ "network-online.target" ];
      # Stopping it takes the addresses away.
      stopIfChanged = false;
      path = [ pkgs.iproute2 ];
      serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
      script = ''
        [ -e /etc/lab/lease ] || exit 0
        mkdir -p /run/dhcpcd
        while read -r interface address gateway; do
          case " ${toString denied} " in *" $interface "*) continue ;; esac
          echo "$interface $address $gateway" >>/run/dhcpcd/leases
          ip link set dev "$interface" up
          ip addr replace "$address" dev "$interface"
          ip route replace default metric 1000 via "$gateway" dev "$interface"
        done </etc/lab/lease
      '';
      # What it has taken, which is not what the unit says that has come since.
      preStop = ''
        [ -e /run/dhcpcd/leases ] || exit 0
        while read -r interface address gateway; do
          ip route del default metric 1000 via "$gateway" dev "$interface" || true
          ip addr del "$address" dev "$interface" || true
        done </run/dhcpcd/leases
        rm /run/dhcpcd/leases
      '';
    };
  };
}
