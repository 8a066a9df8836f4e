package preview

import (
	"context"
	"path"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// lockout finds out, before anything is shipped, what of the new system may lock out the login that is in use: the agent asks for
// those of its files that it has to see. Where that cannot be, the plan says so, and nothing else ends for it.
func (r *reader) lockout(ctx context.Context, p *Planned) error {
	closure, err := r.local.Closure([]nix.StorePath{p.After.Toplevel})
	if err != nil {
		return r.Fail(session.Build, session.Unchanged, err)
	}
	within := map[nix.StorePath]bool{}
	for _, path := range closure {
		within[path] = true
	}
	var unsure []string
	err = r.Link.Do(ctx, func(conn *agent.Session) error {
		files := agent.NewStoreFiles(func(path nix.StorePath) bool { return within[path] })
		var err error
		var risks []agent.Risk
		risks, unsure, err = conn.PreviewLockout(ctx, p.After.Toplevel, path.Base(session.Elevation(r.Node)[0]), files)
		p.Lockout = append([]agent.Risk{}, risks...)
		return err
	})
	switch {
	case err != nil && (agent.IsLost(err) || ctx.Err() != nil):
		return r.Fail(session.Connect, session.Unchanged, err)
	case err != nil:
		p.Lockout = []agent.Risk{}
		p.Unknown = append(p.Unknown, "whether the new system would lock this login out: "+run.Clean(err.Error())+"; it is looked at again when it has arrived")
	case r.opts.AllowLockout:
		// It was said that this is meant.
		p.Lockout = []agent.Risk{}
	default:
		p.Unknown = append(p.Unknown, unsure...)
	}
	return nil
}

// lockoutWarnings says of each risk what comes of it.
func (p *Planned) lockoutWarnings() (warnings []error) {
	for _, r := range p.Lockout {
		warnings = append(warnings, session.Hint("the new system may lock this very login out: "+r.Text, "--allow-lockout activates it all the same"))
	}
	return warnings
}
