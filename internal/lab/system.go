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
// is in the store, the system profile and /boot/default name it, and it is the current and the booted system.
func (t *Target) InstallSystem(ctx context.Context, b *Builder, toplevel string) error {
	if err := t.InstallClosure(ctx, b, toplevel); err != nil {
		return err
	}
	if _, err := t.Output(ctx, "nix-env", "--profile", systemProfile, "--set", toplevel); err != nil {
		return err
	}
	if err := t.WriteFile(ctx, "/boot/default", []byte(toplevel+"\n"), 0o644); err != nil {
		return err
	}
	if _, err := t.Output(ctx, "systemctl", "restart", "lab-boot.service"); err != nil {
		log, _ := t.Output(ctx, "journalctl", "--unit=lab-boot", "--output=cat", "--no-pager", "--lines=20")
		return fmt.Errorf("%w\n%s", err, log)
	}
	_ = t.Command(ctx, "systemctl", "is-system-running", "--wait").Run()
	return ctx.Err()
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
