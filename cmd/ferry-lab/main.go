// Command ferry-lab starts target machines on this one, for people who work on ferry.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"ferry/internal/lab"

	"golang.org/x/sys/unix"
)

const usage = `usage: ferry-lab up [FLAG...]                   start a target and say how to reach it; Ctrl-C takes it away
       ferry-lab run [FLAG...] SCRIPT           run a script where ferry is, beside a target that is gone afterwards
       ferry-lab base [SUITE...]                make the base roots that are missing (bookworm, trixie)
       ferry-lab relay [FLAG...] HOST:PORT      pass standard input and output on, as a ProxyCommand of ssh
       ferry-lab COMMAND -help                  the flags of a command
`

// statusUsage is the exit status of a command line that makes no sense.
const statusUsage = 10

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	commands := map[string]func([]string) (int, error){"up": up, "run": runScript, "base": base, "relay": relay}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(os.Stderr, usage)
		return statusUsage
	}
	status, err := commands[args[0]](args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "ferry-lab: error: %v\n", err)
	}
	return status
}

func interrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}

func up(args []string) (int, error) {
	program, err := os.Executable()
	if err != nil {
		return 1, err
	}
	opts := lab.UpOptions{Relay: program}
	flags := flag.NewFlagSet("ferry-lab up", flag.ContinueOnError)
	flags.StringVar(&opts.Suite, "suite", "bookworm", "the Debian release under it: bookworm, trixie or sid")
	flags.StringVar(&opts.System, "system", "x86_64-linux", "what it calls itself: x86_64-linux or aarch64-linux")
	flags.BoolVar(&opts.NoSystemd, "no-systemd", false, "only sshd and nix-daemon")
	flags.BoolVar(&opts.Bare, "bare", false, "without a NixOS system on it")
	flags.DurationVar(&opts.Delay, "delay", 0, "what each round trip takes longer, as 50ms")
	flags.Int64Var(&opts.Bandwidth, "bandwidth", 0, "bits per second that pass in each direction; 0 means no limit")
	if err := flags.Parse(args); err != nil {
		return statusUsage, err
	}
	return lab.Enter([]string{opts.Suite}, os.Stderr, func() int {
		ctx, stop := interrupted()
		defer stop()
		if err := lab.Up(ctx, os.Stdout, opts); err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "ferry-lab: error: %v\n", err)
			return 1
		}
		return 0
	}), nil
}

func base(args []string) (int, error) {
	if len(args) == 0 {
		args = []string{"bookworm", "trixie"}
	}
	ctx, stop := interrupted()
	defer stop()
	if err := lab.Prepare(ctx, args, os.Stderr); err != nil {
		return 1, err
	}
	return 0, nil
}

func relay(args []string) (int, error) {
	var opts lab.RelayOptions
	flags := flag.NewFlagSet("ferry-lab relay", flag.ContinueOnError)
	flags.DurationVar(&opts.Delay, "delay", 0, "what each round trip takes longer, as 50ms")
	flags.Int64Var(&opts.CutAfter, "cut-after-bytes", 0, "end the connection once that many bytes have passed; 0 means never")
	count := flags.String("count", "", "write bytes up, bytes down and turns to this file at the end")
	if err := flags.Parse(args); err != nil {
		return statusUsage, err
	}
	if flags.NArg() != 1 {
		return statusUsage, errors.New("relay: where to is missing: HOST:PORT, or the path of a socket")
	}
	ctx, stop := interrupted()
	defer stop()
	traffic, err := lab.RelayStream(ctx, standardStreams{os.Stdin, os.Stdout}, flags.Arg(0), opts)
	if err != nil {
		return 1, err
	}
	if *count != "" {
		line := fmt.Sprintf("%d %d %d\n", traffic.Up, traffic.Down, traffic.Turns)
		if err := os.WriteFile(filepath.Clean(*count), []byte(line), 0o644); err != nil {
			return 1, err
		}
	}
	return 0, nil
}

// standardStreams are standard input and output as one connection.
type standardStreams struct {
	io.Reader
	io.WriteCloser
}

// CloseWrite says that nothing follows.
func (s standardStreams) CloseWrite() error { return s.WriteCloser.Close() }
