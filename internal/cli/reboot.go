package cli

import (
	"time"

	"ferry/internal/action"
	"ferry/internal/deploy"

	"github.com/spf13/pflag"
)

// rebootFlags say whether a deployment comes by a reboot.
type rebootFlags struct {
	reboot  bool
	timeout time.Duration
	yes     bool
}

func (f *rebootFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.reboot, "reboot", false, "do the action boot, then reboot the target and wait until it runs the new system; where the boot loader allows it, the old system stays the boot default until then")
	flags.DurationVar(&f.timeout, "reboot-timeout", deploy.DefaultRebootTimeout, "wait `TIME` for a reboot; a new system that does not answer within half of that is rolled back")
	flags.BoolVarP(&f.yes, "yes", "y", false, "deploy without asking; with --reboot, also where a failed reboot cannot be rolled back")
}

// shortestReboot is the shortest time that a target gets: half of it is for the new system.
const shortestReboot = 10 * time.Second

// apply makes options of the flags, and gives the action: a reboot is one by itself.
func (f *rebootFlags) apply(flags *pflag.FlagSet, o *deployOptions, act action.Action, target string, opts *deploy.Options) (action.Action, error) {
	if !f.reboot {
		if flags.Changed("reboot-timeout") {
			return act, usagef("add --reboot", "--reboot-timeout without --reboot")
		}
		return act, nil
	}
	switch {
	case flags.Changed("action") && act != action.Boot:
		return act, usagef("leave out --action: with --reboot it is boot", "--reboot with the action %s", act)
	case o.method != "agent":
		return act, usagef("reboot it by hand after that: sudo systemctl reboot", "--reboot with --method %s", o.method)
	case target == "local":
		return act, usagef("use --action boot, then reboot it by hand", "--reboot of this machine: ferry would end with it")
	case f.timeout < shortestReboot || f.timeout > longest:
		return act, usagef("for example --reboot-timeout 15m", "--reboot-timeout %v: expected a time between %v and %v", f.timeout, shortestReboot, longest)
	}
	opts.Reboot = deploy.RebootOptions{Timeout: f.timeout, Yes: f.yes}
	return action.Boot, nil
}
