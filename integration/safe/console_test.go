package safe_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestAPersonAtTheConsoleDecides does by hand what doc/safety.md says, on a target that nobody else can reach.
func TestAPersonAtTheConsoleDecides(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	cutOff := func(x *trial, phase site.Stage) {
		cmd, ended := x.begin(phase, "--confirm-timeout=10m")
		x.dies(cmd, ended)
	}
	console := func(x *trial, command string) {
		x.OnTarget("sh", "-c", strings.ReplaceAll(command, "NAME", strings.TrimSuffix(x.OnTarget("sh", "-c", "basename "+folder), "-switch")))
	}
	t.Run("to keep it", func(t *testing.T) {
		x := x.in(t)
		greeting := x.rewrite("")
		cutOff(x, confirm)
		console(x, `echo '{"verdict":"keep"}' | tee /run/ferry/NAME-switch/verdict`)
		x.ends("committed")
		x.goOn(confirm)
		x.isNew(greeting)
	})
	t.Run("to go back", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.rewrite("")
		cutOff(x, confirm)
		console(x, `echo '{"verdict":"back","reason":"the screen is dark"}' | tee /run/ferry/NAME-switch/verdict`)
		x.goesBack()
		x.goOn(confirm)
		x.is(before)
		if e := x.lastEntry(); e.Reason != "the screen is dark" {
			t.Errorf("the journal says %+v", e)
		}
		x.attaches().Fails(t, 4, "web: activate: the screen is dark; the target rolled back to ", "the whole log")
	})
	t.Run("to go back from an activation that hangs", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.rewrite("")
		cutOff(x, activate)
		console(x, "systemctl kill --signal=KILL ferry-NAME-switch.service && rm /run/hold-activate && systemctl start --no-block ferry-rollback-NAME.service")
		x.goesBack()
		x.is(before)
	})
	t.Run("to restart it", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.rewrite("")
		cutOff(x, confirm)
		x.Reboot()
		after := x.State()
		before.Greeter = after.Greeter
		x.Want(after, before)
		// The GC root of the way back is left, for the next deployment to remove.
		x.deployed("")
	})
}

// TestTheTimesOfASwitchAreNotTheClocks looks at what the deadlines are counted by: a clock that is set, as by NTP on a machine
// without a battery, neither makes the target go back too early nor keeps it from going back.
func TestTheTimesOfASwitchAreNotTheClocks(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	greeting := x.rewrite("")
	_, ended := x.begin(confirm, "--confirm-timeout=200s")
	var s struct {
		Phase    string
		Deadline float64
	}
	if err := json.Unmarshal([]byte(state(x.Rehearsal)), &s); err != nil {
		t.Fatal(err)
	}
	up, err := strconv.ParseFloat(strings.Fields(x.OnTarget("cat", "/proc/uptime"))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	if left := s.Deadline/1000 - up; s.Phase != "waiting" || left < 100 || left > 200 {
		t.Errorf("%.0f s are left by the machine's uptime, in the state %+v", left, s)
	}
	var timer string
	x.until("the second timer is there", func() string {
		timer = x.OnTarget("sh", "-c", "systemctl list-units --no-legend --plain --full 'ferry-rollback-*-unconfirmed.timer' | cut -d' ' -f1")
		return timer
	}, ".timer")
	for property, want := range map[string]bool{"TimersMonotonic": true, "TimersCalendar": false} {
		if got := x.OnTarget("systemctl", "show", "-p", property, "--value", timer); (got != "") != want {
			t.Errorf("the timer's %s is %q", property, got)
		}
	}
	x.goOn(confirm)
	if o := ended(); o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	x.isNew(greeting)
}
