package server

import (
	"errors"
	"os"
)

// systemPath is where a NixOS, or another system with Nix, keeps its tools.
const systemPath = "/run/wrappers/bin:/run/current-system/sw/bin:/run/current-system/sw/sbin:/nix/var/nix/profiles/default/bin:" +
	"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

// Environment sets what every process of the agent gets: a PATH with all the places where a NixOS, or another system with
// Nix, keeps its tools, because sudo may leave an empty one, or one that begins with the user's own folders; Nix working on
// the store itself, not through its daemon; and no wish to install the boot loader anew.
func Environment() error {
	path := systemPath
	if inherited := os.Getenv("PATH"); inherited != "" {
		path += ":" + inherited
	}
	return errors.Join(os.Setenv("PATH", path), os.Unsetenv("NIX_REMOTE"), os.Unsetenv("NIXOS_INSTALL_BOOTLOADER"))
}

// BuildProbe is the whole of a tiny derivation whose builder is this program: that it runs at all shows that the machine
// builds for this program's system.
func BuildProbe() error {
	out := os.Getenv("out")
	if out == "" {
		return errors.New("$out is not set: this is for nix-build only")
	}
	return os.WriteFile(out, []byte("built\n"), 0o444)
}
