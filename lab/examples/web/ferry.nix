# One machine, a small web server. `ferry deploy web` deploys it, `ferry help inventory` explains this file.
{
  nixpkgs = import ./pin.nix;

  nodes.web = {
    configuration = ./configuration.nix;
    # How ssh reaches it: user, host, or a name in ~/.ssh/config.
    target = "alice@web";
  };
}
