package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"time"

	"ferry/internal/action"
	"ferry/internal/deploy"
	"ferry/internal/fleet"
	"ferry/internal/inventory"
	"ferry/internal/prose"
	"ferry/internal/session"
	"ferry/internal/target"

	"github.com/spf13/pflag"
)

// fleetFlags say how several nodes are deployed.
type fleetFlags struct {
	parallel      int
	activate      int
	batch         string
	pause         time.Duration
	maxFailures   int
	rollBackBatch bool
	unreachable   string
	resume        bool
}

// defaultParallel is how many nodes are changed at once: enough to be quick, and few enough for a jump host.
const defaultParallel = 10

func (f *fleetFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&f.parallel, "parallel", defaultParallel, "connect to, and change, `N` nodes at once")
	flags.IntVar(&f.activate, "parallel-activate", 0, "activate `N` nodes at once; --parallel then limits only connecting and shipping (default: --parallel limits both)")
	flags.StringVar(&f.batch, "batch", "", "change the nodes in groups of these `SIZES`, one after another: 1,10%,rest")
	flags.DurationVar(&f.pause, "pause", 0, "wait `TIME` between two batches")
	flags.IntVar(&f.maxFailures, "max-failures", 0, "leave the remaining nodes unchanged when more than `N` have failed (default: no limit; 0 with --batch or --rollback-batch)")
	flags.BoolVar(&f.rollBackBatch, "rollback-batch", false, "when that happens, also roll back the other nodes of the batch")
	flags.StringVar(&f.unreachable, "unreachable", "fail", "`HOW` to treat an unreachable node: fail, or skip it")
	flags.BoolVar(&f.resume, "resume", false, "deploy the nodes that the last multi-node deployment did not finish")
}

// apply makes options of the flags.
func (f *fleetFlags) apply(flags *pflag.FlagSet, act action.Action, opts *fleet.Options) error {
	opts.Parallel, opts.ParallelActivate, opts.Pause, opts.Cores = f.parallel, f.activate, f.pause, runtime.NumCPU()
	opts.MaxFailures, opts.RollBackBatch, opts.SkipUnreachable = f.maxFailures, f.rollBackBatch, f.unreachable == "skip"
	if !flags.Changed("max-failures") && f.batch == "" && !f.rollBackBatch {
		opts.MaxFailures = -1
	}
	switch {
	case f.parallel < 1:
		return usagef("for example --parallel 10", "--parallel %d: expected a number above 0", f.parallel)
	case f.activate < 1 && flags.Changed("parallel-activate"):
		return usagef("for example --parallel-activate 3", "--parallel-activate %d: expected a number above 0", f.activate)
	case f.maxFailures < 0:
		return usagef("", "--max-failures %d: expected a number, 0 or above", f.maxFailures)
	case f.unreachable != "fail" && f.unreachable != "skip":
		return usagef("", "--unreachable %q: expected fail or skip", f.unreachable)
	case f.pause < 0 || f.pause > longest:
		return usagef("for example --pause 5m", "--pause %v: expected a time up to %v", f.pause, longest)
	case f.pause > 0 && f.batch == "":
		return usagef("add --batch 1,rest", "--pause without --batch")
	case f.rollBackBatch && act != action.Switch:
		return usagef("", "--rollback-batch goes with the action switch, not with %s", act)
	case f.batch == "":
		return nil
	}
	var err error
	if opts.Batches, err = fleet.ParseBatches(f.batch); err != nil {
		return &usageError{err: err}
	}
	return nil
}

// rest are those of the inventory's nodes that the last deployment of several left over.
func (a *app) rest(inv *inventory.Inventory, file string, act action.Action) ([]inventory.Node, error) {
	last, err := fleet.ReadLast(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, usagef("", "nothing to resume: there was no multi-node deployment of %s from here", inv.File)
	case err != nil:
		return nil, err
	case last.Action != string(act):
		return nil, usagef("add --action "+last.Action, "the action of the deployment to resume was %s, not %s", last.Action, act)
	}
	var nodes []inventory.Node
	for _, name := range last.Rest() {
		node, err := inv.Node(name)
		if err != nil {
			a.note(name + " is not in the inventory any more")
			continue
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// deployFleet deploys several nodes, and tells what became of each.
func (a *app) deployFleet(ctx context.Context, with session.Session, inv *inventory.Inventory, nodes []inventory.Node, opts fleet.Options) error {
	secrets := a.sharePasswords(nodes, &with)
	defer secrets.forget()
	opts.Note = a.note
	opts.Batch = func(number, of, nodes int) {
		if a.events != nil {
			a.events.batch(number, of, nodes)
		}
		a.printer.Print(fmt.Sprintf("ferry: batch %d of %d: %s", number, of, prose.Count(nodes, "node")))
	}
	opts.Ended = func(o fleet.Outcome) {
		secrets.settle(o.Node.Name, false)
		a.printer.Ended(o.Node.Name, o.Status != fleet.Done && o.Status != fleet.Stopped)
		lines := endOf(o, opts.SkipUnreachable)
		for _, line := range lines {
			a.printer.Print(line)
		}
		a.logLines(o.Node.Name, lines)
		if a.events != nil {
			a.events.ended(o)
		}
	}
	if a.events != nil {
		a.events.begin(inv, nodes, opts.Deploy.Action)
	}
	a.showSeveral(nodes)
	outcomes := fleet.Run(ctx, with, inv, nodes, opts)
	a.outcomes = outcomes
	if slices.ContainsFunc(outcomes, func(o fleet.Outcome) bool { return errors.Is(o.Err, fleet.ErrDeclined) }) {
		a.printer.Print("ferry: cancelled; nothing was changed")
	}
	for _, line := range fleetSummary(outcomes) {
		a.printer.Print(line)
	}
	if status := fleetStatus(ctx, outcomes, opts.SkipUnreachable); status != exitOK {
		return &reportedError{status}
	}
	return nil
}

// showSeveral tells the printer which nodes are to be shown side by side.
func (a *app) showSeveral(nodes []inventory.Node) {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	a.printer.Several(names)
}

// sharePasswords makes several nodes ask for passwords together.
func (a *app) sharePasswords(nodes []inventory.Node, with *session.Session) *passwords {
	secrets := newPasswords(nodes, a.askFor, a.loginUser(with.Dialer))
	observe := with.Observe
	with.Password = secrets.give
	with.Observe = func(e session.Event) {
		secrets.observe(e)
		observe(e)
	}
	return secrets
}

// loginUser gives what tells which user logs in on a node. Of one with several addresses it is the users of all of them, as what
// is typed may be sent to each. What comes from a file or a command is one for all, whoever they are.
func (a *app) loginUser(dialer *target.Dialer) func(context.Context, inventory.Node) (string, bool) {
	return func(ctx context.Context, node inventory.Node) (string, bool) {
		if a.password.given() {
			return "", true
		}
		users := loginUsers(ctx, dialer, node)
		return strings.Join(users, " or "), !slices.Contains(users, "")
	}
}

// loginUsers are those who may log in on a node, each once: "" is one that is not known.
func loginUsers(ctx context.Context, dialer *target.Dialer, node inventory.Node) []string {
	var users []string
	for _, to := range append([]string{node.Target}, node.Fallbacks...) {
		user := ""
		if address, err := target.ParseAddress(to); err == nil {
			user = dialer.LoginUser(ctx, address)
		}
		// One that cannot be parsed ends its node's deployment before it asks for anything.
		if !slices.Contains(users, user) {
			users = append(users, user)
		}
	}
	return users
}

// onePassword refuses to take one password, from a file or a command, to nodes that the inventory keeps apart. Where root logs
// in, none is asked for.
func (a *app) onePassword(ctx context.Context, nodes []inventory.Node) error {
	differs := func(n inventory.Node) bool { return n.PasswordFor != nodes[0].PasswordFor }
	if !a.password.given() || !slices.ContainsFunc(nodes, differs) {
		return nil
	}
	dialer := a.dialer()
	var words []string
	apart := map[string][]inventory.Node{}
	for _, n := range nodes {
		if slices.Equal(loginUsers(ctx, dialer, n), []string{"root"}) {
			continue
		}
		if apart[n.PasswordFor] == nil {
			words = append(words, n.PasswordFor)
		}
		apart[n.PasswordFor] = append(apart[n.PasswordFor], n)
	}
	if len(words) < 2 {
		return nil
	}
	var groups []string
	for _, word := range words {
		has := "no passwordFor"
		if word != "" {
			has = fmt.Sprintf("passwordFor = %q", word)
		}
		groups = append(groups, fmt.Sprintf("%s (%s)", nodeNames(apart[word]), has))
	}
	return usagef("give the command once for each of these groups, or leave the flag away to be asked",
		"%s is one password, and the inventory keeps these nodes apart: %s", a.password.flag(), strings.Join(groups, "; "))
}

// endOf says how a node's deployment ended.
func endOf(o fleet.Outcome, skip bool) []string {
	switch {
	case o.Status == fleet.Done:
		return []string{summary(o.Node.Name, o.Node.Target, o.Result)}
	case o.Status == fleet.Stopped:
		return nil
	case o.Status == fleet.Unreachable && skip:
		return []string{fmt.Sprintf("%s: skipped: %s", o.Node.Name, strings.TrimPrefix(message(o.Err), o.Node.Name+": "))}
	case o.Status == fleet.RolledBack && o.Result.Outcome == deploy.Committed:
		return []string{o.Node.Name + ": " + message(o.Err)}
	}
	return explanation(o.Err)
}

// statuses are what nodes are counted by at the end, in this order.
var statuses = [...]fleet.Status{fleet.Done, fleet.Failed, fleet.Unreachable, fleet.RolledBack, fleet.Unknown, fleet.Stopped}

// fleetSummary says in a few lines what became of the nodes.
func fleetSummary(outcomes []fleet.Outcome) []string {
	named := map[fleet.Status][]inventory.Node{}
	for _, o := range outcomes {
		named[o.Status] = append(named[o.Status], o.Node)
	}
	var counts, lines []string
	left := false
	for _, s := range statuses {
		nodes := named[s]
		if len(nodes) == 0 {
			continue
		}
		counts = append(counts, fmt.Sprintf("%d %s", len(nodes), statusWords(s)))
		left = left || s != fleet.Done
		if s != fleet.Done {
			lines = append(lines, fmt.Sprintf("ferry: %s: %s", statusWords(s), nodeNames(nodes)))
		}
	}
	if left {
		lines = append(lines, "ferry: hint: ferry deploy --resume does what is left")
	}
	return append([]string{fmt.Sprintf("ferry: %s: %s", prose.Count(len(outcomes), "node"), strings.Join(counts, ", "))}, lines...)
}

func statusWords(s fleet.Status) string {
	switch s {
	case fleet.Unknown:
		return "in an unknown state"
	case fleet.RolledBack:
		return "rolled back"
	case fleet.Failed:
		return "failed (unchanged)"
	}
	return string(s)
}

// fleetStatus is the exit status of a deployment of several nodes: the most serious wins. A node that was skipped does not
// count, unless every one was.
func fleetStatus(ctx context.Context, outcomes []fleet.Outcome, skip bool) int {
	count := map[fleet.Status]int{}
	usage := 0
	for _, o := range outcomes {
		count[o.Status]++
		var wrong interface{ Usage() bool }
		if errors.As(o.Err, &wrong) && wrong.Usage() {
			usage++
		}
	}
	bad := len(outcomes) - count[fleet.Done]
	if skip && bad > count[fleet.Unreachable] || skip && count[fleet.Done] > 0 {
		bad -= count[fleet.Unreachable]
	}
	switch {
	case count[fleet.Unknown] > 0:
		return exitUnknown
	case count[fleet.RolledBack] > 0:
		return exitRolledBack
	case bad == 0:
		return exitOK
	case count[fleet.Done] > 0:
		return exitPartly
	case ctx.Err() != nil && count[fleet.Stopped] > 0:
		return exitInterrupted
	case usage == bad:
		return exitUsage
	}
	return exitFailed
}
