{ config, pkgs, ... }:

let
  greeting = "Hello from ferry!";

  page = pkgs.writeTextDir "index.html" ''
    <!doctype html>
    <title>${config.networking.hostName}</title>
    <h1>${greeting}</h1>
  '';
in
{
  networking.hostName = "web";
  services.openssh.enable = true;

  systemd.services.greeting = {
    description = "A page that says hello";
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      ExecStart = "${pkgs.busybox}/bin/httpd -f -p 8080 -h ${page}";
      DynamicUser = true;
      Restart = "on-failure";
    };
  };

  system.stateVersion = "24.05";
}
