package examine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/health"
	"ferry/internal/prose"
	"ferry/internal/session"
	"ferry/internal/ship"
	"ferry/internal/status"
)

// examined is a node whose target is examined.
type examined struct {
	*session.Visit
	evaluated
	findings []Finding
}

func (x *examined) add(f Finding) { x.findings = append(x.findings, f) }

// judge adds what err says of something, or that it is well.
func (x *examined) judge(about string, err error, format string, args ...any) {
	if err != nil {
		x.add(broken(about, err))
		return
	}
	x.add(well(about, format, args...))
}

// target examines the node's target as root, as a deployment would. The error is why root could not be had; it is among the
// findings as well.
func (x *examined) target(ctx context.Context) error {
	asked := false
	s := x.Session
	if ask := s.Password; ask != nil {
		s.Password = func(ctx context.Context, node, command string, attempt int) ([]byte, error) {
			asked = true
			return ask(ctx, node, command, attempt)
		}
	}
	begin := time.Now()
	conn, err := s.Ask(ctx, x.Node, session.Shared)
	var elevate *agent.ElevateError
	if err != nil && !errors.As(err, &elevate) {
		x.add(broken("ssh", err))
		return err
	}
	if err != nil {
		x.add(well("ssh", "%s", x.Node.Target))
		x.add(broken("sudo", sudoError(elevate)))
		// What everyone may see is known all the same, where the agent is there.
		s.Password = nil
		if conn, asUser := s.Ask(ctx, x.Node, session.Reading); asUser == nil {
			defer conn.Close()
			x.ask(ctx, conn, begin, false)
		}
		return err
	}
	defer conn.Close()
	ssh := well("ssh", "%s, host %s", x.Node.Target, conn.Hello.Facts.Host)
	if conn.Interactive() {
		ssh.Attention, ssh.Text = status.Notice, "ssh asks a person for the login; a switch is then confirmed by less than a login"
		ssh.Fixes = []string{"let ssh-agent have the key: ssh-add"}
	}
	x.add(ssh)
	sudo := well("sudo", "no password needed")
	if asked {
		sudo.Text = "takes the password"
	}
	x.add(sudo)
	x.ask(ctx, conn, begin, true)
	return nil
}

// ask asks the agent, which was started after begin, for everything else. Without root not all of it can be known.
func (x *examined) ask(ctx context.Context, conn *agent.Session, begin time.Time, asRoot bool) {
	facts, end := conn.Hello.Facts, time.Now()
	more, err := conn.Look(ctx)
	if err != nil {
		x.add(broken("agent", err))
		return
	}
	facts.Lock = more.Lock
	x.facts(facts)
	x.add(clockFinding(facts, begin, end))
	x.state(ctx, facts, more)
	if !asRoot {
		conn = nil
	}
	x.disks(ctx, conn, facts, more)
}

// sudoError says how to get root on a target where it cannot be had.
func sudoError(e *agent.ElevateError) error {
	fixes := e.Hints()
	if e.Kind == agent.PasswordNeeded || e.Kind == agent.NotAllowed {
		fixes = append(fixes, `or on the target: security.sudo.extraRules, or /etc/sudoers.d, with NOPASSWD for the user that deploys`)
	}
	return session.Hint(e.Error(), fixes...)
}

// facts looks at what a deployment looks at first.
func (x *examined) facts(facts agent.Facts) {
	says := map[string]string{
		"lock": "no one else is deploying", "nix": "Nix " + facts.Nix, "nixos": "NixOS " + facts.Version, "system": facts.System,
	}
	for _, c := range session.Conditions(facts, x.Node.System, false) {
		// What is shipped has to fit as well: that is looked at later.
		if c.About != "store" || c.Err != nil {
			x.judge(c.About, c.Err, "%s", says[c.About])
		}
	}
	for _, c := range session.Forgets(facts) {
		f := broken(c.About, c.Err)
		f.Attention = status.Notice
		x.add(f)
	}
	x.judge("systemd", session.RollsBack(facts), "systemd %d", facts.Systemd)
}

// tolerance is how much two clocks may differ before anyone has to know.
const tolerance = 30 * time.Second

// clockFinding compares the target's clock, which was read at some time between begin and end, with this machine's.
func clockFinding(facts agent.Facts, begin, end time.Time) Finding {
	there := time.Unix(facts.Time, 0)
	difference := max(begin.Sub(there)-time.Second, there.Sub(end), 0)
	f := well("clock", "in step with this machine")
	if difference > tolerance {
		word := "behind"
		if there.After(end) {
			word = "ahead"
		}
		f.Attention, f.Text = status.Warning, fmt.Sprintf("it is %s %s: certificates, and times in the journal, may be wrong", difference.Round(time.Second), word)
		f.Fixes = []string{"on the target: services.timesyncd.enable = true; and look at timedatectl", "if this machine's is wrong: timedatectl here"}
	}
	return f
}

// state looks at what runs on the target, and at what keeps it.
func (x *examined) state(ctx context.Context, facts agent.Facts, more agent.LookResult) {
	x.add(unitFinding(more, x.Node.Checks.Units))
	if len(more.Roots) == 0 {
		x.add(well("roots", "the deployed system is protected"))
	}
	for _, t := range more.Roots {
		f := Finding{About: "roots", Attention: status.Warning, Text: t.Text, Fixes: []string{"on the target: " + t.Fix}}
		if t.Blocks {
			f.Attention = status.Serious
		}
		x.add(f)
	}
	if a := more.Armed; a != nil && a.Reboot {
		x.add(Finding{About: "trial", Attention: status.Warning, Text: session.SystemName(a.Toplevel) + " is being tried by a reboot, and is not committed",
			Fixes: []string{"wait until that has ended; ferry status " + x.Node.Name + " shows it"}})
	}
	p := x.Known(ctx, x.toplevel)
	x.judge("history", session.Surprise(facts, p), "no one else's system would be replaced")
}

// unitFinding judges the units that have failed, as the node's checks would.
func unitFinding(more agent.LookResult, policy health.UnitPolicy) Finding {
	if more.UnitsError != "" {
		return Finding{About: "units", Attention: status.Notice, Text: "failed units are not known: " + more.UnitsError}
	}
	points := status.UnitPoints(more)
	if len(points) == 0 {
		return well("units", "none has failed")
	}
	f := Finding{About: "units", Attention: status.Warning, Text: points[0].Text,
		Fixes: []string{"on the target: systemctl status " + strings.Join(more.Failed[:min(len(more.Failed), status.UnitsNamed)], " ")}}
	if policy == health.None {
		f.Attention, f.Text = status.Serious, f.Text+`; with checks.units.failed = "none" a switch would be rolled back`
	}
	return f
}

// disks compares the room on the target with what would come, as far as that is known without a session.
func (x *examined) disks(ctx context.Context, conn *agent.Session, facts agent.Facts, more agent.LookResult) {
	free := "its room is not known"
	if facts.StoreFree > 0 {
		free = prose.Size(uint64(facts.StoreFree)) + " free"
	}
	switch n, err := x.toShip(ctx, conn); {
	case facts.Nix == "":
	case err != nil:
		x.add(broken("store", err))
	case n < 0:
		x.add(well("store", "%s", free))
	default:
		x.judge("store", session.Fits(facts, uint64(n)), "%s, %s to ship", free, prose.Size(uint64(n)))
	}
	boot := well("boot", "%s free", prose.Size(uint64(facts.BootFree)))
	size, known := bootNeeds(string(x.toplevel), x.built, more)
	if err := status.FitsBoot(facts, size); err != nil {
		boot = broken("boot", err)
		if !known {
			// Only if they change.
			boot.Attention = status.Warning
		}
	}
	x.add(boot)
}

// toShip is how many bytes the target lacks; -1: that is not known, because nothing is built or nobody may be asked.
func (x *examined) toShip(ctx context.Context, conn *agent.Session) (int64, error) {
	if !x.built || conn == nil || conn.Hello.Facts.Nix == "" {
		return -1, nil
	}
	local, err := x.Nix.OpenServe(ctx)
	if err != nil {
		return 0, err
	}
	defer local.Close()
	plan, err := ship.MakePlan(ctx, local.Serve, conn, x.bundle, ship.Options{NoDelta: true})
	if err != nil {
		return 0, session.FullDisk(err)
	}
	return int64(plan.Bytes), nil
}

// bootNeeds is what the boot loader has to put into /boot, in bytes: the files of the new system that the running one has not.
// Where that is not here, as much as for the running one, which is not known to be so.
func bootNeeds(toplevel string, built bool, more agent.LookResult) (size int64, known bool) {
	if more.BootSize == 0 {
		return 0, true
	}
	if !built {
		return more.BootSize, false
	}
	for _, name := range agent.BootFiles {
		file, err := os.Readlink(toplevel + "/" + name)
		if err != nil || slices.Contains(more.BootFiles, file) {
			continue
		}
		if info, err := os.Stat(file); err == nil {
			size += info.Size()
		}
	}
	return size, true
}
