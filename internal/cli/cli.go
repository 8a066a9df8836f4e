// Package cli is ferry's command line: flags, help, one file per command, and what an error becomes as a message and as an
// exit status. Only this package prints errors.
package cli

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"ferry/internal/fleet"
	"ferry/internal/logs"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/target"
	"ferry/internal/ui"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Version is the release that this ferry is, or becomes. It is in every bundle, so that it is the same for all builds up to that.
const Version = "0.1.0"

// Env is what a command line has around it.
type Env struct {
	Args   []string // without the program's name
	In     io.Reader
	Out    io.Writer // the product: store paths, commands
	Err    io.Writer // for people
	Getenv func(string) string
	Now    func() time.Time
	// Leave tells that what goes on would rather not be broken off by the first signal, which ends Main's context. The
	// context it gives is done at the second one; until over is called, that does not end ferry at once.
	Leave func() (leave context.Context, over func())
	// Version is what this build calls itself: a release, or a commit on the way to one; "": only [Version] is known.
	Version string
}

// Main runs one command line and gives the exit status. It prints every error.
func Main(ctx context.Context, env Env) int {
	if env.Version == "" {
		env.Version = Version
	}
	a := &app{Env: env}
	root := a.root()
	root.SetArgs(env.Args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	a.close()
	status := a.report(ctx, err)
	a.endLog(status)
	return status
}

// app is what the commands of one command line share.
type app struct {
	Env
	verbose   bool
	sshConfig string

	printer  *ui.Printer
	tty      *os.File
	runner   *run.Runner
	started  bool // a command runs: errors are no longer about how it was called
	password passwordFlags
	terminal sync.Mutex // held by who asks on the terminal
	log      *logs.Run  // nil: nothing is kept
	events   *events    // nil: they are not wanted
	outcomes []fleet.Outcome
	clients  []*nix.Client // released in the end
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ferry",
		Short: "Deploy NixOS: build here, ship, switch there",
		Long: `ferry deploys NixOS machines. It builds a system on this machine, ships what is new over ssh, and switches the
target to it. Nothing is built, evaluated or downloaded on the target; one login and one sudo do the work.

The machines are described in ferry.nix; "ferry help inventory" says how.`,
		Example: `  ferry deploy                     deploy the only node of ferry.nix
  ferry deploy pi                  deploy the node pi
  ferry deploy --action boot pi    the same, but from the next boot on
  ferry build pi                   build only, and print the bundle's store path
  ferry by-hand pi                 print the commands that do the same without ferry`,
		Version:           a.Env.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              cobra.ArbitraryArgs,
		RunE:              a.runRoot,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			a.started = true
			a.open()
			a.noteHabits(cmd)
		},
	}
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "show every command that runs on this machine, and build logs")
	root.AddCommand(a.deployCommand(), a.attachCommand(), a.buildCommand(), a.byHandCommand(), a.abandonCommand(), a.nodesCommand(),
		a.planCommand(), a.diffCommand(), a.verifyCommand(), a.whyBuildCommand(),
		a.statusCommand(), a.historyCommand(), a.checkCommand(), a.generationsCommand(), a.rollbackCommand(), a.execCommand(), a.sshCommand(),
		a.logCommand(), a.cacheCommand(), a.versionCommand(), a.manCommand(), inventoryTopic())
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("ferry {{.Version}}\n")
	root.SetHelpTemplate(root.HelpTemplate() + "\nExit status:\n" + exitStatusHelp)
	nameCompletion(root)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(a.helpCommand())
	return root
}

// open finds out what the command has around it. It is not done for help and completion.
func (a *app) open() {
	a.tty = target.OpenTerminal()
	var terminal *os.File
	if file, ok := a.Err.(*os.File); ok && term.IsTerminal(int(file.Fd())) && a.Getenv("TERM") != "dumb" {
		terminal = file
	}
	a.printer = ui.New(a.Err, terminal, a.verbose, a.Now)
	a.runner = &run.Runner{}
	if a.verbose {
		a.runner.Trace = a.printer.Command
	}
}

// newNix is a client of this machine's Nix. What it keeps from being collected, it keeps until the command ends.
func (a *app) newNix(options nix.Options) *nix.Client {
	client := &nix.Client{Runner: a.runner, Options: options}
	a.clients = append(a.clients, client)
	return client
}

func (a *app) close() {
	for _, c := range a.clients {
		c.Release()
	}
	if a.printer != nil {
		a.printer.Close()
	}
	if a.tty != nil {
		_ = a.tty.Close()
	}
}

func (a *app) dialer() *target.Dialer {
	return &target.Dialer{Runner: a.runner, SSHConfig: a.sshConfig, Terminal: a.tty, Asking: a.printer.Suspend, Turn: &a.terminal}
}
