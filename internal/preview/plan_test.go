package preview

import (
	"testing"
	"time"

	"ferry/internal/ship"
)

// TestAShipIsEstimated locks the time that a plan gives, and that it gives none where nothing is known.
func TestAShipIsEstimated(t *testing.T) {
	for name, c := range map[string]struct {
		measured  ship.Result
		perSecond uint64
		want      ToShip
	}{
		"nothing known":     {ship.Result{Wire: 84e6}, 0, ToShip{}},
		"not measured":      {ship.Result{}, 2.1e6, ToShip{}},
		"the link":          {ship.Result{Wire: 84e6, Duration: time.Second}, 2.1e6, ToShip{Seconds: 40, PerSecond: 2.1e6}},
		"this machine":      {ship.Result{Wire: 84e6, Duration: time.Minute}, 2.1e6, ToShip{Seconds: 60, PerSecond: 2.1e6}},
		"not in a lifetime": {ship.Result{Wire: 84e12}, 2.1e6, ToShip{}},
	} {
		var got ToShip
		got.estimate(c.measured, c.perSecond)
		if got.Seconds != c.want.Seconds || got.PerSecond != c.want.PerSecond {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
