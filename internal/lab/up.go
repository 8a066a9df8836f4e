package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// UpOptions say what Up starts.
type UpOptions struct {
	Options
	RelayOptions
	// Bandwidth limits the target's link, in bits per second in each direction; 0 means no limit.
	Bandwidth int64
	// Bare leaves the target without a NixOS system.
	Bare bool
	// Relay is the program that an ssh outside the lab runs to get in; "relay" and the path of a socket are its arguments.
	Relay string
}

// upName is what the target of Up is called in its ssh configuration.
const upName = "pi"

// Up starts a target that can be reached from outside the lab, says on out how, and keeps it until ctx ends. It must be
// called inside a lab.
func Up(ctx context.Context, out io.Writer, opts UpOptions) (err error) {
	soon, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	t, err := Start(soon, opts.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	if !opts.Bare {
		if err := t.furnishNixOS(soon); err != nil {
			return err
		}
	}
	if err := t.Bandwidth(soon, opts.Bandwidth); err != nil {
		return err
	}
	dir := filepath.Join(t.run.scratch, "up")
	if err := t.writeSSH(dir, opts.Relay); err != nil {
		return err
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		return err
	}
	relay := ServeRelay(listener, netip.AddrPortFrom(t.Addr(), 22).String(), opts.RelayOptions)
	defer relay.Close()
	if err := giveToCaller(dir); err != nil {
		return err
	}
	nixpkgs, err := Nixpkgs(soon)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `An %s machine (%s) is up, as %q in this ssh configuration:

  ssh -F %s %s

From the checkout, this deploys to it:

  bin/ferry deploy --ssh-config %[4]s --configuration lab/examples/web/configuration.nix \
    --nixpkgs %[6]s --system %[1]s %[5]s

Users: alice and zoe (zsh) and finn (fish) have sudo with the password  %[7]s
       bob has sudo without a password, dora doas, carol nothing; root may log in too.
Ctrl-C takes all of it away.
`, t.System(), t.opts.Suite, upName, filepath.Join(dir, "ssh_config"), upName, nixpkgs, Password)
	<-ctx.Done()
	return nil
}

// furnishNixOS installs NixOS with a builder that is gone afterwards.
func (t *Target) furnishNixOS(ctx context.Context) (err error) {
	b, err := OpenBuilder(ctx, BuilderOptions{Suite: t.opts.Suite, Aarch64: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return t.InstallNixOS(ctx, b)
}

// writeSSH writes to dir what ssh needs to log in to the target through a socket there.
func (t *Target) writeSSH(dir, relay string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	key, err := os.ReadFile(t.run.keyFile())
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`Host %s
  User alice
  HostName %s
  HostKeyAlias %[2]s
  ProxyCommand "%[3]s" relay "%[4]s/socket"
  IdentityFile "%[4]s/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "%[4]s/known_hosts"
  StrictHostKeyChecking yes
`, upName, t.name, relay, dir)
	for name, text := range map[string]string{
		"id_ed25519": string(key), "ssh_config": config, "known_hosts": t.KnownHost() + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// giveToCaller makes a folder and what is in it belong to who called sudo: ssh would refuse them to anybody else.
func giveToCaller(dir string) error {
	uid, err := strconv.Atoi(os.Getenv("SUDO_UID"))
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.Lchown(filepath.Join(dir, entry.Name()), uid, -1); err != nil {
			return err
		}
	}
	return os.Lchown(dir, uid, -1)
}
