package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// safety is what the way back costs a deployment, and how soon it brings a target back.
type safety struct {
	link link
	// hand is a switch of a system that is there already, by ssh; ferry the same from the end of the ship to the end.
	hand, ferry time.Duration
	// lost is the time from a link that the new system cuts to the old system's answer, of which confirm was waited for.
	lost, confirm time.Duration
}

// safetyLinks are those that show a round trip's worth.
var safetyLinks = []link{{}, {delay: 100 * time.Millisecond}}

// lostConfirm is how long a target waits in the measurement of a lost link.
const lostConfirm = 5 * time.Second

// measureSafety switches a target between two systems that it has, by hand and with ferry in turn, then takes its link away.
func measureSafety(t *testing.T, l link, rounds int) safety {
	t.Helper()
	s := newSite(t, closures[0], l)
	defer s.close()
	s.deploy()
	systems := make([]string, 2)
	for i := range systems {
		s.change(i)
		s.deploy()
		systems[i] = strings.TrimSpace(s.there("readlink", "-f", "/run/current-system"))
	}
	var hand, ferry []time.Duration
	for range rounds {
		begin := time.Now()
		s.output("ssh", "root@"+host, fmt.Sprintf("nix-env -p /nix/var/nix/profiles/system --set %[1]s && %[1]s/bin/switch-to-configuration switch", systems[0]))
		hand = append(hand, time.Since(begin))
		ferry = append(ferry, s.afterShip())
		s.check(changed)
	}
	result := safety{link: l, hand: middle(hand), ferry: middle(ferry), confirm: lostConfirm}
	if l.delay == 0 {
		result.lost = s.loseLink()
	}
	return result
}

func middle(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// there runs a command on the target.
func (s *site) there(argv ...string) string {
	s.t.Helper()
	out, err := s.target.Output(s.t.Context(), argv...)
	s.ok(err)
	return string(out)
}

// deploy deploys the project with ferry. What was switched to by hand before is not ferry's.
func (s *site) deploy(more ...string) {
	s.t.Helper()
	s.output("sh", append([]string{"-c", `cd "$0" && exec ferry deploy --replace-unknown "$@"`, s.path("project")}, more...)...)
}

// afterShip deploys the project, all of which is on the target, and gives the time from there to the end.
func (s *site) afterShip() time.Duration {
	s.t.Helper()
	cmd := s.builder.Command(s.t.Context(), "sh", "-c", `cd "$0" && exec ferry deploy --replace-unknown`, s.path("project"))
	errs, err := cmd.StderrPipe()
	s.ok(err)
	s.ok(cmd.Start())
	var shipped time.Time
	var said strings.Builder
	for lines := bufio.NewScanner(errs); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "web: ship ") {
			shipped = time.Now()
		}
	}
	if err := cmd.Wait(); err != nil || shipped.IsZero() || !strings.Contains(said.String(), "web: done: ") {
		s.t.Fatalf("ferry deploy: %v\n%s", err, said.String())
	}
	return time.Since(shipped)
}

// loseLink deploys a system that takes its own link down, and gives the time until the old one answers again.
func (s *site) loseLink() time.Duration {
	s.t.Helper()
	configuration := s.output("cat", s.path("project/configuration.nix"))
	s.write("configuration.nix", strings.Replace(configuration, "in {\n", "in {\n  system.activationScripts.cut = \"/usr/sbin/ip link set dev host0 down\";\n", 1))
	cmd := s.builder.Command(s.t.Context(), "sh", "-c", `cd "$0" && exec ferry deploy --confirm-timeout `+lostConfirm.String(), s.path("project"))
	s.ok(cmd.Start())
	for s.answers() {
		time.Sleep(10 * time.Millisecond)
	}
	begin := time.Now()
	for !s.answers() {
		time.Sleep(10 * time.Millisecond)
		if time.Since(begin) > time.Minute {
			s.t.Fatal("the target does not come back")
		}
	}
	took := time.Since(begin)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 4 {
		s.t.Fatalf("ferry deploy: %v, want exit status 4", err)
	}
	return took
}

// answers tells whether the target's sshd greets.
func (s *site) answers() bool {
	c, err := net.DialTimeout("tcp", addrPort(s.target).String(), 200*time.Millisecond)
	if err != nil {
		return false
	}
	defer c.Close()
	if c.SetDeadline(time.Now().Add(time.Second)) != nil {
		return false
	}
	greeting := make([]byte, 4)
	_, err = io.ReadFull(c, greeting)
	return err == nil && string(greeting) == "SSH-"
}

// safetyTitle is the title of the section about the way back.
const safetyTitle = "The way back"

// safetyReport is the section about the way back; "" if it was not measured.
func safetyReport(all []safety) string {
	if len(all) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n## " + safetyTitle + "\n\n" + measuredOn() + `What arming, confirming over a new connection and committing cost: a switch of a system that is there already, by hand with
one ssh (nix-env and switch-to-configuration switch), and with ferry from the end of the ship to its own end. Both log in once for it: by
hand to switch, ferry to confirm. Round trips is the difference beyond that without delay, divided by the delay.

| link | by hand | ferry | more | round trips more |
|---|---:|---:|---:|---:|
`)
	for _, s := range all {
		trips := "–"
		if s.link.delay > 0 {
			trips = fmt.Sprintf("%.1f", (s.ferry-s.hand-extra(all)).Seconds()/s.link.delay.Seconds())
		}
		fmt.Fprintf(&b, "| %s | %.2f s | %.2f s | %.2f s | %s |\n", s.link, s.hand.Seconds(), s.ferry.Seconds(), (s.ferry - s.hand).Seconds(), trips)
	}
	for _, s := range all {
		if s.lost > 0 {
			fmt.Fprintf(&b, "\nA system that takes its own link down, with --confirm-timeout %v: the old one answers %.1f s after the link was lost.\n",
				s.confirm, s.lost.Seconds())
		}
	}
	return b.String()
}

// extra is what ferry needs more without any delay: that is work, and no round trip.
func extra(all []safety) time.Duration {
	for _, s := range all {
		if s.link.delay == 0 {
			return s.ferry - s.hand
		}
	}
	return 0
}
