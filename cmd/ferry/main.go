// Command ferry deploys NixOS machines; see package cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"ferry/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends ferry at once.
	context.AfterFunc(ctx, stop)
	status := cli.Main(ctx, cli.Env{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now})
	stop()
	os.Exit(status)
}
