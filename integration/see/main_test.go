// Package see_test proves what ferry says of targets without changing them, on real ones.
package see_test

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
