package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/prose"
	"ferry/internal/session"
	"ferry/internal/status"
	"ferry/internal/ui"

	"github.com/spf13/cobra"
)

// statusOptions are the flags of ferry status.
type statusOptions struct {
	nodeFlags
	json bool
}

func (a *app) statusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [NODES]",
		Short: "Show what runs where, and what needs attention",
		Long: `Ask all nodes at once what they run, and show those first that need attention most. Without NODES, all nodes are asked.
Otherwise each of NODES is a name, a pattern ('web*'), or a tag (@web); prefix a word with ! to exclude the nodes it
matches.

  NIXOS      the release that runs
  NIXPKGS    the nixpkgs commit that it was built from, and the age of that commit: as its version says, or as a pin of
             that very tree in the deployed source says: flake.lock (only this has a date), npins, niv or a fetcher with
             a hash
  REVISION   the git revision that it was deployed from ("+": with uncommitted changes), compared with what is checked out
             here: equal, behind or ahead by a number of commits, diverged, or unknown
  DEPLOYED   how long ago that was, and by whom
  /NIX /BOOT how much space is free

Problems are listed below each node: why it cannot be asked, units that failed, a deployment that was rolled back, a switch
that is not confirmed yet, a boot default that differs from the running system, a reboot that is needed, a full disk.

Nothing is changed. If ferry's agent is already on the target, no sudo is needed; otherwise it is needed once, to copy the
agent there. With several nodes, ferry first asks all that need no password, then the others one after another.

The exit status is 1 if a node could not be asked, whatever the others say.

With --json the output is one object: nodes, a list of objects in the same order. Unknown values are "", 0, [] or null.
  node, target, attention      attention is error, warning, note or ""
  points                       what is wrong: objects with attention and text
  reached, error               whether it could be asked, and why not
  host, system, version        its name, platform, and NixOS's version
  nixpkgs_revision, nixpkgs_date
  revision, dirty, relation, behind, ahead
                               relation is equal, behind, ahead, diverged, unknown or "not comparable"
  deployed                     time (RFC 3339), who, from and action of the deployment of the running system
  last                         the newest deployment: the same, outcome and reason
  current, default, booted, generation
                               the toplevels that run, boot next and were booted, and the number of the boot default
  reboot                       what differs between current and booted: kernel, kernel-modules, initrd
  failed, failed_known         units that failed, and whether they are known
  store_free, boot_free        bytes
  armed                        toplevel, who, phase, left (seconds) and reboot of a switch that may roll back by itself
  lock                         who, from and since (RFC 3339) of the deployment that is under way`,
		Example: `  ferry status
  ferry status @web
  ferry status --json | jq -r '.nodes[] | select(.relation == "behind") | .node'`,
		ValidArgsFunction: a.completeMany(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runStatus(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	return cmd
}

// orAll makes flags mean all nodes where args choose none: for commands that change nothing.
func (f nodeFlags) orAll(args []string) nodeFlags {
	f.all = f.configuration == "" && !slices.ContainsFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "!") })
	return f
}

// asking is the session of a command that asks several nodes at once and changes none.
func (a *app) asking(client *nix.Client, roots session.Roots) session.Session {
	s := session.Session{Nix: client, Dialer: a.dialer(), Roots: roots, Password: a.ask, Who: a.who(), Observe: a.printer.Observe}
	if a.password.given() {
		// A command may ask a person itself, who has only one pair of eyes.
		var one sync.Mutex
		s.Unasked = func(ctx context.Context, node, command string, attempt int) ([]byte, error) {
			one.Lock()
			defer one.Unlock()
			return a.ask(ctx, node, command, attempt)
		}
	}
	return s
}

// looking shows on a terminal that nodes are looked at, until the function it returns is called.
func (a *app) looking(nodes []inventory.Node) (done func()) {
	name := nodes[0].Name
	if len(nodes) > 1 {
		name = prose.Count(len(nodes), "node")
	}
	a.printer.Observe(session.Event{Kind: session.Started, Node: name, Step: session.Connect})
	return func() { a.printer.Ended(name, false) }
}

func (a *app) runStatus(ctx context.Context, o statusOptions, args []string) error {
	inv, nodes, err := a.openNodes(ctx, a.newNix(nix.Options{}), o.nodeFlags.orAll(args), args)
	if err != nil {
		return err
	}
	if err := a.onePassword(ctx, nodes); err != nil {
		return err
	}
	done := a.looking(nodes)
	list, err := status.Of(ctx, a.asking(nil, session.Roots{}), inv, nodes)
	done()
	if err != nil {
		return err
	}
	if o.json {
		err = writeStatusJSON(a.Out, list)
	} else {
		err = writeStatus(a.Out, list, ui.NewPaint(a.Out, a.Getenv))
	}
	if err != nil {
		return err
	}
	var silent []string
	for _, s := range list {
		if s.Err != nil {
			silent = append(silent, s.Node.Name)
		}
	}
	if len(silent) > 0 {
		return fmt.Errorf("%d of %s could not be asked: %s", len(silent), prose.Count(len(list), "node"), strings.Join(silent, ", "))
	}
	return nil
}

func writeStatus(w io.Writer, list []status.Node, paint ui.Paint) error {
	const node, nixos, nixpkgs, deployed = 0, 1, 2, 4
	t := table{
		head:   []string{"NODE", "NIXOS", "NIXPKGS", "REVISION", "DEPLOYED", "/NIX", "/BOOT"},
		shrink: []shrinking{{deployed, 8}, {node, 10}, {nixpkgs, 7}, {nixos, 5}, {node, 6}},
		right:  map[int]bool{5: true, 6: true},
	}
	for _, s := range list {
		row := tableRow{cells: statusCells(s)}
		switch s.Attention {
		case status.Serious:
			row.paint = paint.Red
		case status.Warning:
			row.paint = paint.Yellow
		}
		for _, p := range s.Points {
			row.below = append(row.below, wrapBehind("  "+p.Attention.String()+": ", p.Text)...)
		}
		t.rows = append(t.rows, row)
	}
	return t.write(w)
}

func statusCells(s status.Node) []string {
	now := time.Unix(s.Facts.Time, 0)
	nixpkgs := shortRevision(s.NixpkgsRevision, false)
	if !s.NixpkgsDate.IsZero() {
		nixpkgs = strings.TrimSpace(nixpkgs + " " + age(now.Sub(s.NixpkgsDate)))
	}
	deployed := ""
	if d := s.Deployed; d != nil {
		deployed = age(now.Sub(d.Time))
		if d.Who != "" {
			deployed += ", " + d.Who
		}
	}
	return []string{
		s.Node.Name, orDash(s.Release), orDash(nixpkgs), orDash(strings.TrimSpace(shortRevision(s.Revision, s.Dirty) + " " + standing(s.Standing))),
		orDash(deployed), room(s.Facts.StoreFree), room(s.Facts.BootFree),
	}
}

// standing is how a revision stands to what is checked out, in a word and a number.
func standing(s inventory.Standing) string {
	switch s.Relation {
	case inventory.NotFromGit:
		return ""
	case inventory.Behind:
		return fmt.Sprintf("behind %d", s.Behind)
	case inventory.Ahead:
		return fmt.Sprintf("ahead %d", s.Ahead)
	}
	return string(s.Relation)
}

// age is how long ago something was, in one unit.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d < 60*day:
		return fmt.Sprintf("%d d", d/day)
	case d < 730*day:
		return fmt.Sprintf("%d mo", d/(365*day/12))
	}
	return fmt.Sprintf("%d y", d/(365*day))
}

func room(bytes int64) string {
	if bytes <= 0 {
		return "-"
	}
	return prose.Size(uint64(bytes))
}
