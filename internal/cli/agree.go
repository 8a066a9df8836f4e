package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"ferry/internal/preview"
	"ferry/internal/prose"
	"ferry/internal/run"

	"golang.org/x/term"
)

// agree gives what asks a person whether to do what is planned for one node or several; nil where there is none who sees it, or
// who has said yes before.
func (a *app) agree(yes bool) func(context.Context, []*preview.Planned) (bool, error) {
	file, ok := a.Err.(*os.File)
	if yes || a.tty == nil || !ok || !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	return func(ctx context.Context, planned []*preview.Planned) (bool, error) {
		var b strings.Builder
		for _, p := range planned {
			b.WriteString(shortPlan(p))
		}
		what := "this"
		if len(planned) > 1 {
			what = "these " + prose.Count(len(planned), "node")
		}
		a.terminal.Lock()
		defer a.terminal.Unlock()
		return a.printer.AskYesNo(ctx, a.tty, b.String()+"deploy "+what+"?")
	}
}

// agreeOne is what agree gives, for one node.
func agreeOne(agree func(context.Context, []*preview.Planned) (bool, error)) func(context.Context, *preview.Planned) (bool, error) {
	if agree == nil {
		return nil
	}
	return func(ctx context.Context, p *preview.Planned) (bool, error) { return agree(ctx, []*preview.Planned{p}) }
}

// shortPlan is what of a plan decides whether one wants it. "ferry plan" shows all of it.
func shortPlan(p *preview.Planned) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: from %s to %s\n", p.Node, run.Clean(p.Before.Name), run.Clean(p.After.Name))
	for _, text := range p.Warnings {
		field(&b, "WARNING", text)
	}
	field(&b, "needs a reboot", p.NeedsReboot)
	if s := p.System; s != nil && !p.SameSystem {
		field(&b, "at next boot", strings.Join(s.Boot, ", "))
		writeSwitch(&b, s)
		comesAndGoes(&b, "mounts", s.Mounts)
		userUnits(&b, s)
		list(&b, "users added", s.Users.Added)
		list(&b, "users removed", s.Users.Removed)
	}
	if p.Closure != nil {
		field(&b, "closure", closureLine(*p.Closure))
	}
	field(&b, "to ship", shipLine(p.Ship))
	activationLine(&b, p)
	return b.String()
}
