package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// systemProfile is where NixOS keeps what it runs.
const systemProfile = "/nix/var/nix/profiles/system"

// StartNixOS is StartTarget for a machine that runs a NixOS system: a small one that b builds with the lab's nixpkgs.
func StartNixOS(tb testing.TB, b *Builder, opts Options) *Target {
	tb.Helper()
	t := StartTarget(tb, opts)
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	if err := t.InstallNixOS(ctx, b); err != nil {
		tb.Fatal(err)
	}
	return t
}

// InstallNixOS makes the target run a small NixOS system that b builds with the lab's nixpkgs; for a target that is not
// of b's architecture, b needs BuilderOptions.Aarch64.
func (t *Target) InstallNixOS(ctx context.Context, b *Builder) error {
	toplevel, err := b.BuildSystem(ctx, fmt.Sprintf("{ networking.hostName = %q; services.openssh.enable = true; }", t.name), t.System())
	if err != nil {
		return fmt.Errorf("%s: build NixOS: %w", t.name, err)
	}
	return t.InstallSystem(ctx, b, toplevel)
}

// BuildSystem builds the NixOS system of a configuration, a Nix expression, with the lab's nixpkgs, and returns its
// toplevel. Nothing protects that from a garbage collection.
func (b *Builder) BuildSystem(ctx context.Context, configuration, system string) (string, error) {
	out, err := b.Output(ctx, "nix-build", "--no-out-link", NixpkgsPath+"/nixos", "--attr", "system",
		"--arg", "configuration", configuration, "--argstr", "system", system)
	return strings.TrimSpace(string(out)), err
}

// InstallSystem makes a target run a NixOS system that was built on b, as if it had been installed with it: its closure
// is in the store, the system profile and the boot loader name it, and the target has booted it.
func (t *Target) InstallSystem(ctx context.Context, b *Builder, toplevel string) error {
	if err := t.InstallClosure(ctx, b, toplevel); err != nil {
		return err
	}
	if _, err := t.Output(ctx, "nix-env", "--profile", systemProfile, "--set", toplevel); err != nil {
		return err
	}
	if _, err := t.Output(ctx, toplevel+"/bin/switch-to-configuration", "boot"); err != nil {
		return err
	}
	if err := errors.Join(t.Sync(), t.Kill()); err != nil {
		return err
	}
	return t.PowerOn(ctx)
}

// BootDefault is the toplevel that the target boots next, if nothing has asked for another one to be tried once; "" means
// none. The target may be off.
func (t *Target) BootDefault(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "chroot", t.Root(), machineScript, "default").Output()
	if err != nil {
		return "", fmt.Errorf("%s: boot default: %w", t.name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// InstallClosure puts store paths of b, and all they refer to, into the target's store. Nothing protects them there
// from a garbage collection.
func (t *Target) InstallClosure(ctx context.Context, b *Builder, paths ...string) error {
	out, err := b.Output(ctx, "nix-store", append([]string{"--query", "--requisites"}, paths...)...)
	if err != nil {
		return err
	}
	send := b.Command(ctx, "nix-store", append([]string{"--export"}, strings.Fields(string(out))...)...)
	take := t.Command(ctx, "nix-store", "--import")
	var sent, took bytes.Buffer
	send.Stderr, take.Stderr = &sent, &took
	pipe, err := send.StdoutPipe()
	if err != nil {
		return err
	}
	take.Stdin = pipe
	if err := send.Start(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	taken := take.Run()
	// Else an export that nobody reads any more would wait for ever.
	pipe.Close()
	if err := errors.Join(send.Wait(), taken); err != nil {
		return fmt.Errorf("copy to %s: %w: %s%s", t.name, err, lastLines(sent.String(), 10), lastLines(took.String(), 10))
	}
	return nil
}
