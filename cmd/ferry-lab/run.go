package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"ferry/internal/lab"
)

// runScript runs a script of sh on a building machine of its own, which has ferry and the examples, beside a target.
func runScript(args []string) (int, error) {
	flags := flag.NewFlagSet("ferry-lab run", flag.ContinueOnError)
	name := flags.String("target", "web", "what the target is called there")
	if err := flags.Parse(args); err != nil {
		return statusUsage, err
	}
	if flags.NArg() != 1 {
		return statusUsage, errors.New("run: name one script")
	}
	return lab.Enter([]string{"bookworm"}, os.Stderr, func() int {
		ctx, stop := interrupted()
		defer stop()
		status, err := scriptAt(ctx, flags.Arg(0), *name)
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "ferry-lab: error: %v\n", err)
		}
		return status
	}), nil
}

// scriptAt makes both machines, runs the script, and gives its exit status.
func scriptAt(ctx context.Context, script, target string) (int, error) {
	b, err := lab.OpenBuilder(ctx, lab.BuilderOptions{})
	if err != nil {
		return 1, err
	}
	t, err := lab.Start(ctx, lab.Options{})
	if err != nil {
		return 1, err
	}
	if err := furnish(ctx, b, t, script, target); err != nil {
		return 1, err
	}
	cmd := b.Command(ctx, "sh", filepath.Join(b.Home(), filepath.Base(script)))
	cmd.Env = append(cmd.Env, "NIXPKGS="+lab.NixpkgsPath)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if cmd.ProcessState == nil {
		return 1, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// furnish makes the target a NixOS machine that b knows by name, and brings ferry, the examples, the script and the
// password of the target's users to b. Nothing is taken away again: the lab does that.
func furnish(ctx context.Context, b *lab.Builder, t *lab.Target, script, target string) error {
	if err := t.InstallNixOS(ctx, b); err != nil {
		return err
	}
	if err := b.Know(t); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Dir(program)
	if err := b.Install(filepath.Join(bin, "ferry")); err != nil {
		return err
	}
	if err := b.CopyTree(filepath.Join(bin, "../lab/examples"), filepath.Join(b.Home(), "examples")); err != nil {
		return err
	}
	text, err := os.ReadFile(script)
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		filepath.Join(b.Home(), filepath.Base(script)): string(text),
		filepath.Join(b.Home(), "password"):            lab.Password + "\n",
		"/etc/hosts":                                   fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", t.Addr(), target),
		"/etc/ssh/ssh_config.d/target.conf":            fmt.Sprintf("Host %s\n  HostKeyAlias %s\n", target, t.Name()),
	} {
		if err := b.WriteFile(name, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}
