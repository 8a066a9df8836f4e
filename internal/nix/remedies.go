package nix

import (
	"fmt"
	"runtime"
)

// Remedies are the ways to make this machine build for the system, each of which is enough: those of what this machine runs, and
// last the one that works anywhere.
func (e *PlatformError) Remedies() []string { return platformRemedies(runtime.GOOS, e.System) }

func platformRemedies(goos, system string) []string {
	anywhere := fmt.Sprintf("anywhere: a machine that is %s as a remote builder, in /etc/nix/machines or --builders 'ssh://user@host %s'", system, system)
	if goos == "darwin" {
		return []string{"on macOS: nix.linux-builder.enable = true; with nix-darwin, else nix run nixpkgs#darwin.linux-builder", anywhere}
	}
	return []string{
		fmt.Sprintf("on NixOS: boot.binfmt.emulatedSystems = [ %q ];", system),
		fmt.Sprintf("on Debian: sudo apt install qemu-user-static, extra-platforms = %s in /etc/nix/nix.conf, then sudo systemctl restart nix-daemon", system),
		anywhere,
	}
}

// byPlatform is the text for what this machine runs.
func byPlatform(goos, linux, darwin string) string {
	if goos == "darwin" {
		return darwin
	}
	return linux
}

func installNix(goos string) string {
	return byPlatform(goos, "install it: sudo apt install nix-bin nix-setup-systemd on Debian, else https://nixos.org/download", "install it: https://nixos.org/download")
}

// setUpDaemon says how Nix gets a daemon where there is none.
func setUpDaemon(goos string) string {
	return byPlatform(goos, "on Debian: sudo apt install nix-setup-systemd, sudo usermod -aG nix-users \"$USER\", then log out and in again",
		"install Nix with its daemon: https://nixos.org/download")
}

func startDaemon(goos string) string {
	return byPlatform(goos, "sudo systemctl start nix-daemon.socket", "sudo launchctl kickstart system/org.nixos.nix-daemon")
}

func joinUsers(goos string) string {
	return byPlatform(goos, "on Debian: sudo usermod -aG nix-users \"$USER\", then log out and in again", "allowed-users in /etc/nix/nix.conf says who may")
}
