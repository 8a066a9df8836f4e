// Package ship_test proves on real targets that what arrives is what was built, whatever the target has already and whatever
// happens on the way.
package ship_test

import (
	"os"
	"path/filepath"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestWhatMakeBuildsIsThere says once what is missing, instead of failing everywhere.
func TestWhatMakeBuildsIsThere(t *testing.T) {
	if _, err := os.Stat(filepath.Join(site.Root(t), "bin/ferry")); err != nil {
		t.Fatalf("%v: run make build", err)
	}
}
