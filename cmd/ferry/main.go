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

// version is what `ferry version` says. The linker sets it; see release/version.
var version string

func main() {
	ctx, stop := context.WithCancel(context.Background())
	caught := make(chan os.Signal, 3)
	signal.Notify(caught, os.Interrupt, syscall.SIGTERM)
	s := newSignals(stop, endBy, 2*time.Second)
	go s.take(caught)
	os.Exit(cli.Main(ctx, cli.Env{
		Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now, Leave: s.listen,
		Version: version,
	}))
}

// endBy ends this process at once, by a signal.
func endBy(sig os.Signal) {
	signal.Reset(sig)
	number := syscall.SIGTERM
	if n, ok := sig.(syscall.Signal); ok {
		number = n
	}
	_ = syscall.Kill(os.Getpid(), number)
	// It is ignored where whoever started ferry wants that.
	time.Sleep(time.Second)
	os.Exit(128 + int(number))
}
