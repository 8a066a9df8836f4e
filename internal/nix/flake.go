package nix

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"

	"ferry/internal/run"
)

// flakeCommand is a command of nix about flakes, whatever nix.conf has enabled. Where Nix starts git, git starts no program that a
// checkout's configuration names to watch its files.
func (c *Client) flakeCommand(args ...string) run.Command {
	cmd := c.command("nix", append([]string{"--extra-experimental-features", "nix-command flakes"}, args...)...)
	cmd.Env = withoutMonitor(os.Getenv("GIT_CONFIG_COUNT"))
	return cmd
}

// withoutMonitor is the environment that switches git's monitors off, behind the settings that the user's own environment has: count says
// how many. Of several values the last counts. A count that is no number is git's to refuse.
func withoutMonitor(count string) []string {
	n, err := strconv.ParseUint(cmp.Or(count, "0"), 10, 16)
	if err != nil {
		return nil
	}
	return []string{
		fmt.Sprintf("GIT_CONFIG_COUNT=%d", n+1), fmt.Sprintf("GIT_CONFIG_KEY_%d=core.fsmonitor", n), fmt.Sprintf("GIT_CONFIG_VALUE_%d=false", n),
	}
}

// FlakeMetadata copies the source of the flake at ref to the store, and gives what Nix says of it as JSON, its lock as it would be
// included. Nothing is written to the flake. more are options of the command. If Nix refuses, the error is an [*EvalError].
func (c *Client) FlakeMetadata(ctx context.Context, ref string, more ...string) ([]byte, error) {
	args := append([]string{"flake", "metadata", "--json", "--no-write-lock-file"}, more...)
	out, err := c.flakeOutput(ctx, c.flakeCommand(append(args, "--", ref)...))
	if err != nil {
		return nil, fmt.Errorf("nix flake metadata: %w", err)
	}
	return out, nil
}

// FlakeValue is the string at an attribute path of the flake at ref, as Nix itself evaluates it. more are options of the command.
func (c *Client) FlakeValue(ctx context.Context, ref, attribute string, more ...string) (string, error) {
	args := append([]string{"eval", "--raw", "--no-write-lock-file"}, more...)
	out, err := c.flakeOutput(ctx, c.flakeCommand(append(args, "--", ref+"#"+attribute)...))
	if err != nil {
		return "", fmt.Errorf("nix eval: %w", err)
	}
	return string(out), nil
}

func (c *Client) flakeOutput(ctx context.Context, cmd run.Command) ([]byte, error) {
	var out bytes.Buffer
	var messages evalMessages
	lines := &lineWriter{each: messages.line}
	cmd.Out, cmd.Err = &out, lines
	err := c.run(ctx, cmd)
	lines.end()
	if err == nil {
		return out.Bytes(), nil
	}
	if fault := messages.fault(ctx, err); fault != nil {
		return nil, fault
	}
	return nil, err
}
