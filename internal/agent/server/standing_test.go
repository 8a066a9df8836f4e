package server

import (
	"testing"

	"ferry/internal/agent"
)

// TestWhatRanBeforeRunsAfterwardsOrIsNamed has units that neither the new nor the old system's switch starts again.
func TestWhatRanBeforeRunsAfterwardsOrIsNamed(t *testing.T) {
	m := newMachine(t).withSystemd()
	const stays = "stays.service loaded active running it\n"
	m.Write("/control/standing", stays+`a.socket loaded active listening it
b.timer loaded active waiting it
broken.path loaded active waiting it
daemon.service loaded active running it
idle.service loaded active running it
woken.service loaded active running it
hand.service loaded active running it
done.service loaded active exited it
`)
	for unit, shown := range map[string]string{
		"broken.path": "LoadState=loaded\n", "daemon.service": "LoadState=loaded\nType=simple\nWantedBy=multi-user.target\n",
		"idle.service":  "LoadState=loaded\nType=dbus\nWantedBy=multi-user.target\n",
		"woken.service": "LoadState=loaded\nType=simple\nWantedBy=multi-user.target\nTriggeredBy=woken.socket\n", "hand.service": "LoadState=not-found\n",
	} {
		m.Write("/control/show-"+unit, shown)
	}
	m.Write("/control/cannot-broken.path", "")
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	m.Write("/control/standing", stays)
	r, log := f.ask(finish(agent.VerdictBack))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.Trouble != "ran before, and not any more: broken.path, daemon.service" {
		t.Errorf("%+v, %v, %q", r.Switch, r.Error, log)
	}
	if got, want := m.Read("/control/standing"), stays+"a.socket loaded active listening it\nb.timer loaded active listening it\n"; got != want {
		t.Errorf("running: %q", got)
	}
}
