package cli

import (
	"time"

	"ferry/internal/deploy"

	"github.com/spf13/pflag"
)

// switchFlags say how a running target is changed: what every command that does so has.
type switchFlags struct {
	confirmTimeout    time.Duration
	activationTimeout time.Duration
	unsafe            bool
	replaceUnknown    bool
	allowLockout      bool
}

func (f *switchFlags) add(flags *pflag.FlagSet) {
	limits := deploy.DefaultLimits()
	flags.DurationVar(&f.confirmTimeout, "confirm-timeout", limits.Confirm, "roll back unless ferry reaches the target over a new connection within `TIME` after the activation")
	flags.DurationVar(&f.activationTimeout, "activation-timeout", limits.Activation, "end an activation that takes longer than `TIME`, and roll back")
	flags.BoolVar(&f.allowLockout, "allow-lockout", false, "continue although the new system may lock this login out")
	flags.BoolVar(&f.replaceUnknown, "replace-unknown", false, "replace a system that was not deployed by ferry, or not from this checkout's history")
	flags.BoolVar(&f.unsafe, "unsafe", false, "continue where the target cannot roll back by itself, as without systemd")
}

// longest is the longest time that a target waits.
const longest = 24 * time.Hour

// switching makes options of the flags.
func (f *switchFlags) switching(a *app) (deploy.Switching, error) {
	for name, d := range map[string]time.Duration{"--confirm-timeout": f.confirmTimeout, "--activation-timeout": f.activationTimeout} {
		if d < time.Second || d > longest {
			return deploy.Switching{}, usagef("for example "+name+" 90s", "%s %v: expected a time between 1s and %v", name, d, longest)
		}
	}
	return deploy.Switching{
		Limits: deploy.Limits{Activation: f.activationTimeout, Confirm: f.confirmTimeout}, AllowLockout: f.allowLockout, Ask: a.question(),
		Unsafe: f.unsafe, Leave: a.Leave,
	}, nil
}
