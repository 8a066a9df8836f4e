// Command ferry-agent is the target's side of ferry. It is started by ferry, as root; people do not call it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"ferry/internal/agent/receive"
	"ferry/internal/agent/server"
)

func main() {
	if err := agentMain(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ferry-agent:", err)
		// Not 1: that is how doas says that the password was wrong.
		os.Exit(70)
	}
}

func agentMain(args []string) error {
	// A target may have little memory; the agent never holds more than a few buffers.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(24 << 20)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	// A broken pipe is an error of the write. Not ignored: that would be handed down to switch-to-configuration and everything
	// below it, where scripts count on it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	if err := server.Environment(); err != nil {
		return err
	}
	if len(args) == 0 {
		return fmt.Errorf("usage: ferry-agent serve|job|keep|rollback|settle|reboot-back|accounts-back|dial|lane|build-probe")
	}
	switch args[0] {
	case "serve":
		flags := flag.NewFlagSet("serve", flag.ContinueOnError)
		opts := server.Options{}
		flags.StringVar(&opts.Who, "as", "", "who deploys")
		flags.StringVar(&opts.Session, "session", "", "names the deployment")
		flags.BoolVar(&opts.Lock, "lock", false, "take the target's lock")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		var err error
		if opts.Program, err = os.Executable(); err != nil {
			return err
		}
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		opts.Gone = leave
		busy := new(sync.Mutex)
		opts.Busy = busy
		go func() {
			<-ctx.Done()
			busy.Lock()
			// What the agent is at work on need not notice. Jobs are processes of their own and go on.
			os.Exit(0)
		}()
		if err := server.Serve(ctx, os.Stdin, os.Stdout, opts); ctx.Err() == nil {
			// It ends by itself, and says why: that leave is called from here on must not end it before.
			busy.Lock()
			return err
		}
		return nil
	case "job":
		if len(args) != 2 {
			return fmt.Errorf("usage: ferry-agent job FOLDER")
		}
		return server.RunJob(ctx, args[1])
	case "keep":
		if len(args) != 3 {
			return fmt.Errorf("usage: ferry-agent keep SOCKET STATE")
		}
		return receive.RunParking(ctx, args[1], args[2], receive.ParkLimit)
	case "reboot-back":
		return server.RunRebootTimer(context.Background())
	case "accounts-back":
		return server.RunAccountsBack(context.Background())
	case "rollback":
		if len(args) != 2 {
			return fmt.Errorf("usage: ferry-agent rollback FOLDER")
		}
		return server.RunRollback(context.Background(), args[1])
	case "tidy":
		if len(args) != 2 {
			return fmt.Errorf("usage: ferry-agent tidy FOLDER")
		}
		server.RunTidy(ctx, args[1])
		return nil
	case "settle":
		return server.RunSettle(ctx)
	case "dial":
		if len(args) != 2 {
			return fmt.Errorf("usage: ferry-agent dial HOST:PORT")
		}
		return server.Dial(ctx, args[1], os.Stdin, os.Stdout)
	case "lane":
		if len(args) != 2 {
			return fmt.Errorf("usage: ferry-agent lane SOCKET")
		}
		return receive.Channel(ctx, args[1], os.Stdin, os.Stdout)
	case "build-probe":
		return server.BuildProbe()
	}
	return fmt.Errorf("unknown command %q", args[0])
}
