package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/remote"
	"ferry/internal/session"

	"github.com/spf13/cobra"
)

// execOptions are the flags of ferry exec.
type execOptions struct {
	nodeFlags
	parallel int
	sudo     bool
	group    bool
	json     bool
}

func (a *app) execCommand() *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec [NODES] -- COMMAND [ARG...]",
		Short: "Run a command on nodes",
		Long: `Run a command on nodes, up to --parallel at a time, as the login user; with --sudo as root, through ferry's agent, with
one password prompt per user. Arguments are passed unchanged; standard input is empty. For pipes and globs, run a shell:
-- sh -c 'df -h | tail -1'.

` + chooseHelp + `

Each line of output is printed after its node's name, unless there is only one node: standard output on standard output,
standard error on standard error. As root, both come on standard output. With --group, the lines of a node are printed
together when its command has ended. Control characters that move a cursor are removed from the lines; for the unchanged
bytes, use "ferry ssh NODE -- COMMAND".

The exit status is 0 if the command exited with 0 on every node, 3 if it did so on some, and 1 otherwise. When ferry ends,
commands that run as root end too; others may go on until they write something.

With --json, one line per node is printed as each ends, an object with node; exit, the exit status, or null; stdout and
stderr, the output, at most 1 MB each; and error, why there is no exit status, or "".`,
		Example: `  ferry exec --all -- uptime
  ferry exec @web --sudo -- systemctl restart nginx
  ferry exec --all --group -- sh -c 'df -h / | tail -1'`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if cmd.ArgsLenAtDash() >= 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completeMany(&o.nodeFlags)(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 0 || dash == len(args) {
				return usagef("for example: ferry exec @web -- uptime", "no command given: put it after --")
			}
			return a.runExec(cmd.Context(), o, args[:dash], args[dash:])
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	o.nodeFlags.addMany(flags)
	flags.IntVar(&o.parallel, "parallel", defaultParallel, "run it on `N` nodes at once")
	flags.BoolVar(&o.sudo, "sudo", false, "run it as root")
	flags.BoolVar(&o.group, "group", false, "print the output of each node together, when the command has ended there")
	flags.BoolVar(&o.json, "json", false, "print JSON, one object per node")
	a.addLogin(flags)
	return cmd
}

func (a *app) runExec(ctx context.Context, o execOptions, words, argv []string) error {
	if o.parallel < 1 {
		return usagef("for example --parallel 10", "--parallel %d: expected a number above 0", o.parallel)
	}
	if o.group && o.json {
		return usagef("", "--group and --json exclude each other")
	}
	_, nodes, err := a.openNodes(ctx, a.newNix(nix.Options{}), o.nodeFlags, words)
	if err != nil {
		return err
	}
	if o.sudo {
		if err := a.onePassword(ctx, nodes); err != nil {
			return err
		}
	}
	dialer := a.dialer()
	secrets := newPasswords(nodes, a.askFor, a.loginUser(dialer))
	defer secrets.forget()
	shown := &execOutput{out: a.Out, err: a.Err, group: o.group, json: o.json, width: nameWidth(nodes)}
	slots := make(chan struct{}, o.parallel)
	var group sync.WaitGroup
	for _, node := range nodes {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			node := shown.begin(node)
			command := remote.Command{
				Session: session.Session{Dialer: dialer, Password: secrets.give, Who: a.who()}, Argv: argv, Root: o.sudo,
				Connected: func() { secrets.settle(node.Name, true) }, Out: node.line(false), Err: node.line(true),
			}
			status, err := command.On(ctx, node.Node)
			secrets.settle(node.Name, false)
			node.end(status, err)
		})
	}
	group.Wait()
	switch {
	case shown.bad == 0:
		return nil
	case shown.good > 0:
		return &reportedError{exitPartly}
	case ctx.Err() != nil:
		return &reportedError{exitInterrupted}
	}
	return &reportedError{exitFailed}
}

// nameWidth is how wide names are before a node's lines: 0, none, for a single node.
func nameWidth(nodes []inventory.Node) int {
	width := 0
	for _, n := range nodes {
		width = max(width, utf8.RuneCountInString(n.Name))
	}
	if len(nodes) == 1 {
		return 0
	}
	return width
}

// execOutput shows what commands write on several nodes, one line at a time.
type execOutput struct {
	out, err    io.Writer
	group, json bool
	width       int

	mu        sync.Mutex
	good, bad int
}

// execNode is the output of one node.
type execNode struct {
	inventory.Node
	to       *execOutput
	out, err strings.Builder // with --group and --json
}

// maxExecOutput is how much is kept of what a command writes until it has ended, in bytes.
const maxExecOutput = 1 << 20

func (o *execOutput) begin(node inventory.Node) *execNode { return &execNode{Node: node, to: o} }

// line gives what takes the lines of a stream.
func (n *execNode) line(isErr bool) func(string) {
	return func(text string) {
		n.to.mu.Lock()
		defer n.to.mu.Unlock()
		to, kept := n.to.out, &n.out
		if isErr {
			to, kept = n.to.err, &n.err
		}
		switch {
		case n.to.group && !isErr || n.to.json:
			if kept.Len()+len(text) < maxExecOutput {
				kept.WriteString(text + "\n")
			}
		case n.to.width > 0:
			fmt.Fprintf(to, "%-*s | %s\n", n.to.width, n.Name, text)
		default:
			fmt.Fprintln(to, text)
		}
	}
}

// execJSON is a node as --json prints it.
type execJSON struct {
	Node   string `json:"node"`
	Exit   *int   `json:"exit"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	Error  string `json:"error"`
}

// end shows how the command ended on the node.
func (n *execNode) end(status int, err error) {
	n.to.mu.Lock()
	defer n.to.mu.Unlock()
	if err == nil && status == 0 {
		n.to.good++
	} else {
		n.to.bad++
	}
	if n.to.json {
		line := execJSON{Node: n.Name, Stdout: n.out.String(), Stderr: n.err.String()}
		if err != nil {
			line.Error = message(err)
		} else {
			line.Exit = &status
		}
		encoder := json.NewEncoder(n.to.out)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(line)
		return
	}
	if n.to.group && n.to.width > 0 {
		fmt.Fprintf(n.to.out, "%s:\n", n.Name)
	}
	_, _ = io.WriteString(n.to.out, n.out.String())
	switch {
	case err != nil:
		for _, line := range explanation(err) {
			fmt.Fprintln(n.to.err, line)
		}
	case status != 0:
		fmt.Fprintf(n.to.err, "ferry: %s: exit status %d\n", n.Name, status)
	}
}
