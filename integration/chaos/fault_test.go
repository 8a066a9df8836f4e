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
	// What the world outside does about it when all is over, as somebody who plugs a cable in, it leaves to round.owe.
	do func(ctx context.Context, r *round, s strike) error
	// in are the phases in which there is something to hurt; nil: all.
	in []phase
	// leave: the user gives up. restart: the target starts again; cut: without its power before.
	leave, restart, cut bool
	// mounts: a folder is mounted on, which two of them would get wrong. moves: it is on another file system meanwhile, and what is
	// written there would be gone with the power.
	mounts, moves bool
}

// The phases in which some parts of ferry are there.
var (
	guarded = []phase{arming, activating, waiting, confirmed, committing, rollingBack}
	shipped = []phase{preparing}
)

// faults are all that can happen, each as likely as the others that can happen in the same phase.
func faults() []fault {
	all := [][]fault{networkFaults(), processFaults(), powerFaults(), diskFaults(), otherFaults()}
	var list []fault
	for _, some := range all {
		list = append(list, some...)
	}
	return list
}

// on is a fault that a script on the target makes.
func on(script string) func(context.Context, *round, strike) error {
	return func(ctx context.Context, r *round, _ strike) error { return r.sh(ctx, script) }
}

// untilTheEnd is one that another script mends when all is over.
func untilTheEnd(begin, end string) func(context.Context, *round, strike) error {
	return func(ctx context.Context, r *round, _ strike) error {
		r.owe(func(ctx context.Context) error { return r.sh(ctx, end) })
		return r.sh(ctx, begin)
	}
}

// forAWhile is one that another script mends after a while.
func forAWhile(begin, end string) func(context.Context, *round, strike) error {
	return func(ctx context.Context, r *round, s strike) error {
		// Its end may be in vain, on a machine that is off at that moment.
		r.owe(func(ctx context.Context) error { return r.sh(ctx, end) })
		if err := r.sh(ctx, begin); err != nil {
			return err
		}
		pause(ctx, s.lasts)
		return r.sh(ctx, end)
	}
}

// Scripts for the network.
const (
	hole   = "while read -r i a gateway; do ip route replace blackhole $gateway/32; done </etc/lab/lease"
	noHole = "while read -r i a gateway; do ip route del blackhole $gateway/32 2>/dev/null; done </etc/lab/lease; true"

	// An interface that was down has lost its routes; whoever puts it up again sees to that.
	interfaceDown = "ip link set host0 down"
	interfaceUp   = "ip link set host0 up; while read -r i a gateway; do ip address replace $a dev $i; ip route replace default via $gateway dev $i; done </etc/lab/lease"

	// stopSSHD is not undone by who did it, and not by ferry if nothing was left for it to undo.
	stopSSHD  = "touch /run/sshd-was-stopped; systemctl stop sshd"
	startSSHD = `for status in /run/ferry/*-switch/status; do
	[ "$status" -nt /run/sshd-was-stopped ] && grep -q '"rolled back"' "$status" && exit
done
systemctl start sshd`
)

func networkFaults() []fault {
	return []fault{
		{name: "link down for a while", do: linkDownForAWhile},
		{name: "link down until all is over", do: linkDown},
		{name: "link down and the user leaves", do: linkDown, leave: true},
		{name: "packets are lost for a while", do: losePackets},
		{name: "black hole for a while", do: forAWhile(hole, noHole)},
		{name: "black hole until all is over", do: untilTheEnd(hole, noHole)},
		{name: "interface down for a while", do: forAWhile(interfaceDown, interfaceUp)},
		{name: "sshd killed", do: on("pkill -9 -x sshd")},
		{name: "sshd stopped", do: untilTheEnd(stopSSHD, startSSHD)},
	}
}

func (r *round) plug(ctx context.Context, in bool) error {
	r.power.Lock()
	defer r.power.Unlock()
	if in {
		return r.Target.LinkUp(ctx)
	}
	return r.Target.LinkDown(ctx)
}

func linkDown(ctx context.Context, r *round, _ strike) error {
	r.owe(func(ctx context.Context) error { return r.plug(ctx, true) })
	return r.plug(ctx, false)
}

func linkDownForAWhile(ctx context.Context, r *round, s strike) error {
	if err := linkDown(ctx, r, s); err != nil {
		return err
	}
	pause(ctx, s.lasts)
	return r.plug(ctx, true)
}

// losePackets pulls the cable and plugs it in again, many times, and each time for longer than the one before.
func losePackets(ctx context.Context, r *round, s strike) error {
	end := time.Now().Add(2 * s.lasts)
	for gap := 50 * time.Millisecond; time.Now().Before(end) && ctx.Err() == nil; gap += gap / 4 {
		if err := linkDown(ctx, r, s); err != nil {
			return err
		}
		pause(ctx, gap)
		if err := r.plug(ctx, true); err != nil {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
	return nil
}

func powerFaults() []fault {
	return []fault{
		{name: "power cut", do: powerCut, restart: true, cut: true},
		{name: "power cut twice", restart: true, cut: true, do: func(ctx context.Context, r *round, s strike) error {
			if err := powerCut(ctx, r, s); err != nil {
				return err
			}
			pause(ctx, s.lasts/6)
			return powerCut(ctx, r, s)
		}},
		{name: "power cut, and ferry killed", restart: true, cut: true, do: func(ctx context.Context, r *round, s strike) error {
			_ = signals(syscall.SIGKILL)(ctx, r, s)
			return powerCut(ctx, r, s)
		}},
		{name: "reboot by somebody else", do: reboot, restart: true},
	}
}

// powerCut takes the power away and gives it back. Whoever does that looks after the cable.
func powerCut(ctx context.Context, r *round, s strike) error {
	r.power.Lock()
	defer r.power.Unlock()
	if r.plan.action == doReboot {
		// What a boot's own activation has written, which syncs nothing, is not what this is about.
		if err := r.Target.Sync(); err != nil {
			return err
		}
	}
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
	// What a boot's own activation has written, which syncs nothing, is not what this is about.
	if err := r.Target.Sync(); err != nil {
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

// A clock that is set is not seen by who counts on the monotonic one. What is left of it are the times of files: what was written
// before is then from the future, or from long ago. (The lab's machines have this machine's clock.)
const clockSet = `find /run/ferry /var/lib/ferry /var/log/ferry -exec touch --no-dereference --date '%s' {} + 2>/dev/null; true`

func otherFaults() []fault {
	return []fault{
		{name: "clock set back", do: on(fmt.Sprintf(clockSet, "1 year"))},
		{name: "clock set on", do: on(fmt.Sprintf(clockSet, "1 year ago"))},
		{name: "garbage collected there", do: on("nix-store --gc >/dev/null 2>&1")},
		{name: "garbage collected here", do: func(ctx context.Context, r *round, _ strike) error {
			_, err := r.Builder.Output(ctx, "nix-store", "--gc")
			return err
		}},
		{name: "garbage collected at both ends", do: func(ctx context.Context, r *round, _ strike) error {
			if err := r.sh(ctx, "nix-store --gc >/dev/null 2>&1"); err != nil {
				return err
			}
			_, err := r.Builder.Output(ctx, "nix-store", "--gc")
			return err
		}},
		{name: "another deployment", do: func(_ context.Context, r *round, _ strike) error { return r.another() }},
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
