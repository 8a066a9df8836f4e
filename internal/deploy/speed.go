package deploy

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"ferry/internal/disk"
	"ferry/internal/ship"
)

// speed is how fast a ship was that says something about the link.
type speed struct {
	Format  int     `json:"format"`
	Wire    uint64  `json:"wire"` // bytes sent
	Seconds float64 `json:"seconds"`
}

const (
	// speedFormat is the version of the file. Another one is not read.
	speedFormat = 1
	// maxSpeedFile is how large the file may be, in bytes.
	maxSpeedFile = 4 << 10
	// leastMeasured is how many bytes a ship has to send: less of it stays in buffers, and measures round trips.
	leastMeasured = 1 << 20
	// mostlyDifferences is how many times as many bytes of NARs as on the wire only differences come to: such a ship measures the
	// two machines.
	mostlyDifferences = 12
	// fastest and longest are the limits of what is believed.
	fastest = 1e11 // bytes per second
	longest = 100 * time.Hour
)

// keepSpeed writes down how fast a ship was, for the next plan.
func keepSpeed(file string, r ship.Result) error {
	if r.Wire < leastMeasured || r.Bytes/mostlyDifferences > r.Wire || r.Duration <= 0 {
		return nil
	}
	return disk.WriteJSON(file, speed{speedFormat, r.Wire, r.Duration.Seconds()})
}

// lastSpeed is how many bytes per second were sent by the last ship that was measured. 0: nothing is known, which is so as well
// where the file is damaged.
func lastSpeed(file string) uint64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpeedFile))
	if err != nil {
		return 0
	}
	var s speed
	if json.Unmarshal(text, &s) != nil || s.Format != speedFormat || s.Seconds <= 0 {
		return 0
	}
	if perSecond := float64(s.Wire) / s.Seconds; perSecond >= 1 && perSecond <= fastest {
		return uint64(perSecond)
	}
	return 0
}

// estimate says how long it takes to send what was measured, at the speed of the last time; what took longer to make here takes at
// least as long.
func (s *ToShip) estimate(measured ship.Result, perSecond uint64) {
	if perSecond == 0 || measured.Wire == 0 {
		return
	}
	took := max(float64(measured.Wire)/float64(perSecond), measured.Duration.Seconds())
	if took <= longest.Seconds() {
		s.PerSecond, s.Seconds = perSecond, took
	}
}

// keepSpeed writes down how fast a ship to the node was.
func (d *deployment) keepSpeed(r ship.Result) {
	if err := keepSpeed(d.Roots.Speed(d.Inventory.File, d.Node.Name), r); err != nil {
		d.note(fmt.Sprintf("the speed of this ship is not kept on this machine: %v", err))
	}
}
