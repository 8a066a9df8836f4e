package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
)

// systemProfile is where NixOS keeps what it runs.
const systemProfile = "/nix/var/nix/profiles/system"

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
	if err := t.Kill(); err != nil {
		return err
	}
	return t.PowerOn(ctx)
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
