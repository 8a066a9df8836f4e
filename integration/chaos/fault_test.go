package chaos_test

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// fault is something that happens to a deployment.
type fault struct {
	name string
	// do makes it happen, and if it does not last returns when it is over. Its error only says that there was nothing to hurt.
	do func(ctx context.Context, r *round, s strike) error
	// mend is what the world outside does when all is over, as somebody who plugs a cable in; nil: nothing.
	mend func(ctx context.Context, r *round) error
	// leave: the user gives up. restart: the target starts again.
	leave, restart bool
}

// Scripts for the target. A full file system has room for names, and for nothing in the files.
const (
	fillRun    = "mount -o remount,size=$(du -sk /run | cut -f1)k /run; dd if=/dev/zero of=/run/filler bs=4k 2>/dev/null; true"
	emptyRun   = "rm -f /run/filler; mount -o remount,size=100m /run"
	fillStore  = "dd if=/dev/zero of=/nix/filler bs=64k 2>/dev/null; dd if=/dev/zero of=/nix/filler2 bs=1k 2>/dev/null; true"
	emptyStore = "rm -f /nix/filler*"

	hole   = "while read -r i a gateway; do ip route replace blackhole $gateway/32; done </etc/lab/lease"
	noHole = "while read -r i a gateway; do ip route del blackhole $gateway/32 2>/dev/null; done </etc/lab/lease; true"

	// killSuccessor waits for the process that the timer starts, and kills it a little later.
	killSuccessor = `for i in $(seq 200); do
	if pgrep -f '^[/]var/lib/ferry/(agent|armed)-[^ ]* rollback' >/dev/null; then
		sleep %.3f
		%s
		exit
	fi
	sleep 0.2
done
exit 1`

	// stopSSHD is not undone by who did it, and not by ferry if nothing was left for it to undo.
	stopSSHD  = "touch /run/sshd-was-stopped; systemctl stop sshd"
	startSSHD = `for status in /run/ferry/*-switch/status; do
	[ "$status" -nt /run/sshd-was-stopped ] && grep -q '"rolled back"' "$status" && exit
done
systemctl start sshd`
)

// killing is a script that kills ferry's processes on the target: pattern is of what stands behind the program.
func killing(pattern string) string {
	return fmt.Sprintf("pkill -9 -f '^[/]var/lib/ferry/(agent|armed)-[^ ]* %s'", pattern)
}

// faults are all that can happen, each as likely as the others.
func faults() []fault {
	onTarget := func(script string) func(context.Context, *round, strike) error {
		return func(ctx context.Context, r *round, _ strike) error { return r.sh(ctx, script) }
	}
	mending := func(script string) func(context.Context, *round) error {
		return func(ctx context.Context, r *round) error { return r.sh(ctx, script) }
	}
	forAWhile := func(begin, end string) func(context.Context, *round, strike) error {
		return func(ctx context.Context, r *round, s strike) error {
			if err := r.sh(ctx, begin); err != nil {
				return err
			}
			pause(ctx, s.lasts)
			return r.sh(ctx, end)
		}
	}
	return []fault{
		{name: "link down for a while", do: linkDownForAWhile},
		{name: "link down until all is over", do: linkDown, mend: linkUp},
		{name: "link down and the user leaves", do: linkDown, mend: linkUp, leave: true},
		{name: "black hole for a while", do: forAWhile(hole, noHole), mend: mending(noHole)},
		{name: "black hole until all is over", do: onTarget(hole), mend: mending(noHole)},
		{name: "sshd killed", do: onTarget("pkill -9 -x sshd")},
		{name: "sshd stopped", do: onTarget(stopSSHD), mend: mending(startSSHD)},
		{name: "ferry killed", do: signals(syscall.SIGKILL)},
		{name: "ferry terminated", do: signals(syscall.SIGTERM)},
		{name: "Ctrl-C", do: signals(syscall.SIGINT)},
		{name: "Ctrl-C twice", do: signals(syscall.SIGINT, syscall.SIGINT)},
		{name: "agent killed", do: onTarget(killing("serve"))},
		{name: "guard killed", do: onTarget(killing("job"))},
		{name: "guard or its successor killed", do: onTarget(killing("(job|rollback)"))},
		{name: "agent and guard killed", do: onTarget(killing("(job|serve)"))},
		{name: "ferry, agent and guard killed", do: func(ctx context.Context, r *round, s strike) error {
			if err := signals(syscall.SIGKILL)(ctx, r, s); err != nil {
				return err
			}
			return r.sh(ctx, killing("(job|serve)"))
		}},
		{name: "ferry, agent, guard and its successor killed", do: func(ctx context.Context, r *round, s strike) error {
			_ = signals(syscall.SIGKILL)(ctx, r, s)
			if err := r.sh(ctx, killing("(job|serve)")); err != nil {
				return err
			}
			return r.sh(ctx, fmt.Sprintf(killSuccessor, (s.lasts/6).Seconds(), killing("rollback")))
		}},
		{name: "power cut", do: powerCut, restart: true},
		{name: "power cut, and ferry killed", restart: true, do: func(ctx context.Context, r *round, s strike) error {
			_ = signals(syscall.SIGKILL)(ctx, r, s)
			return powerCut(ctx, r, s)
		}},
		{name: "reboot by somebody else", do: reboot, restart: true},
		{name: "/run full for a while", do: forAWhile(fillRun, emptyRun), mend: mending(emptyRun)},
		{name: "/run full until all is over", do: onTarget(fillRun), mend: mending(emptyRun)},
		{name: "store full for a while", do: forAWhile(fillStore, emptyStore), mend: mending(emptyStore)},
		{name: "store full until all is over", do: onTarget(fillStore), mend: mending(emptyStore)},
		{name: "another deployment", do: func(_ context.Context, r *round, _ strike) error { return r.another() }},
	}
}

func linkDown(ctx context.Context, r *round, _ strike) error {
	r.power.Lock()
	defer r.power.Unlock()
	return r.Target.LinkDown(ctx)
}

func linkUp(ctx context.Context, r *round) error { return r.Target.LinkUp(ctx) }

func linkDownForAWhile(ctx context.Context, r *round, s strike) error {
	if err := linkDown(ctx, r, s); err != nil {
		return err
	}
	pause(ctx, s.lasts)
	return linkUp(ctx, r)
}

// signals sends ferry signals, one after another.
func signals(all ...syscall.Signal) func(context.Context, *round, strike) error {
	return func(ctx context.Context, r *round, s strike) error {
		for i, signal := range all {
			if i > 0 {
				pause(ctx, s.lasts/6)
			}
			if err := r.ferry.signal(signal); err != nil {
				return err
			}
		}
		return nil
	}
}

// powerCut takes the power away and gives it back. Whoever does that looks after the cable.
func powerCut(ctx context.Context, r *round, s strike) error {
	r.power.Lock()
	defer r.power.Unlock()
	if err := r.Target.Kill(); err != nil {
		return err
	}
	r.note("the power is off")
	pause(ctx, s.lasts/6)
	return r.powerOn(ctx)
}

// powerOn gives the power back.
func (r *round) powerOn(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, bootLimit)
	defer stop()
	if err := r.Target.LinkUp(ctx); err != nil {
		return err
	}
	if err := r.Target.PowerOn(ctx); err != nil {
		r.violates("with its power back: %v", err)
		return err
	}
	r.note("the power is back")
	return nil
}

func reboot(ctx context.Context, r *round, _ strike) error {
	r.power.Lock()
	defer r.power.Unlock()
	boots := r.Target.Boots()
	if err := r.sh(ctx, "systemctl reboot --no-block"); err != nil {
		return err
	}
	// Until it has gone down it answers: the end of this boot is seen by its number.
	ctx, stop := context.WithTimeout(ctx, bootLimit)
	defer stop()
	if err := r.Target.LinkUp(ctx); err != nil {
		return err
	}
	if err := r.Target.WaitReboot(ctx, boots); err != nil {
		r.violates("after a reboot: %v", err)
		return err
	}
	r.note("it has rebooted")
	return nil
}

// bootLimit is how long a machine may take to start, on a busy computer.
const bootLimit = 90 * time.Second

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
