package ship

import (
	"encoding/json"
	"io"
	"os"

	"ferry/internal/disk"
)

// shipSpeed is how fast a ship was that says something about the link.
type shipSpeed struct {
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
	// fastest is the limit of what is believed, in bytes per second.
	fastest = 1e11
)

// KeepSpeed writes down how fast a ship was, for the next plan.
func KeepSpeed(file string, r Result) error {
	if r.Wire < leastMeasured || r.Bytes/mostlyDifferences > r.Wire || r.Duration <= 0 {
		return nil
	}
	return disk.WriteJSON(file, shipSpeed{speedFormat, r.Wire, r.Duration.Seconds()})
}

// LastSpeed is how many bytes per second were sent by the last ship that was measured. 0: nothing is known, which is so as well
// where the file is damaged.
func LastSpeed(file string) uint64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpeedFile))
	if err != nil {
		return 0
	}
	var s shipSpeed
	if json.Unmarshal(text, &s) != nil || s.Format != speedFormat || s.Seconds <= 0 {
		return 0
	}
	if perSecond := float64(s.Wire) / s.Seconds; perSecond >= 1 && perSecond <= fastest {
		return uint64(perSecond)
	}
	return 0
}
