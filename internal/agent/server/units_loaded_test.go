package server

import (
	"reflect"
	"testing"

	"ferry/internal/agent"
)

// TestLoadedUnitsAreToldWithWhatASwitchGoesBy reads what systemctl says, and what an interrupted switch has left.
func TestLoadedUnitsAreToldWithWhatASwitchGoesBy(t *testing.T) {
	m := newMachine(t)
	m.withSystemd().Program("/bin/systemctl", `#!/bin/sh
case $1 in
list-units)
	[ "$2" = --all ] || exit 1
	printf '  a.service loaded active running A\n● b@1.timer loaded failed failed B\nc.service loaded inactive dead C\n'
	printf 'gone.service not-found inactive dead gone.service\ndev-x.device loaded active plugged X\ne.mount loaded active mounted E\nshort\n\n';;
show)
	[ "$2 $5 $6 $7" = '--property=Id,FragmentPath a.service b@1.timer e.mount' ] || exit 1
	printf 'Id=a.service\nFragmentPath=/etc/systemd/system/a.service\n\nFragmentPath=/etc/systemd/system/b@.timer\nId=b@1.timer\n\nId=e.mount\n'
	exit 1;;
esac
`)
	m.Write("/run/nixos/start-list", "a.service\nx.service\n")
	r, _ := m.connect(Options{}).ask(agent.Request{Method: agent.MethodUnits})
	want := &agent.UnitsResult{Units: []agent.LoadedUnit{
		{Name: "a.service", State: "active"}, {Name: "b@1.timer", State: "failed", From: "/etc/systemd/system/b@.timer"},
		{Name: "c.service", State: "inactive"}, {Name: "e.mount", State: "active", From: "-"},
	}, Start: []string{"a.service", "x.service"}}
	if r.Error != nil || !reflect.DeepEqual(r.Units, want) {
		t.Errorf("got %+v, want %+v", r.Units, want)
	}
	if r, _ := newMachine(t).connect(Options{}).ask(agent.Request{Method: agent.MethodUnits}); r.Error != nil || r.Units != nil {
		t.Errorf("without systemd: %+v", r)
	}
}
