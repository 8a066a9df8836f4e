package prose

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"configuration", "system", "tags", "target"}
	for name, want := range map[string]string{
		"tgas": "tags", "Target": "target", "targets": "target", "sytem": "system", "config": "", "": "", "configuraton": "configuration",
		"quite-something-else": "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
