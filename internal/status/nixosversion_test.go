package status

import (
	"testing"
	"time"
)

func TestAVersionOfNixOSSaysWhereItIsFrom(t *testing.T) {
	june := time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)
	for version, want := range map[string]nixosVersion{
		"":                             {},
		"nonsense":                     {release: "nonsense"},
		"24.05.7376.b134951a4c9f":      {"24.05", "b134951a4c9f", time.Time{}},
		"24.11pre711046.8edf06bea5bc":  {"24.11pre", "8edf06bea5bc", time.Time{}},
		"25.05.20250601.b134951":       {"25.05", "b134951", june},
		"25.05.20250601.b134951M":      {"25.05", "b134951", june},
		"25.05.git.b134951a4c9fM":      {"25.05", "b134951a4c9f", time.Time{}},
		"25.05pre-git":                 {"25.05pre", "", time.Time{}},
		"17.09.3269.14f9ee66e63":       {"17.09", "14f9ee66e63", time.Time{}},
		"25.11.20250601.dirty":         {"25.11", "", june},
		"25.05.99999999.b134951.extra": {"25.05", "b134951", time.Time{}},
	} {
		if got := parseNixOSVersion(version); got != want {
			t.Errorf("%q: %+v, want %+v", version, got, want)
		}
	}
}
