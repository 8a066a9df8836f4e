// Package come_test deploys what was not written for ferry, to real targets.
package come_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// matrix adds the newest Nix of Debian, in a release that breaks at times. Its base root is made with FERRY_LAB_SUITES=sid.
var matrix = flag.Bool("matrix", false, "also with Debian sid")

func TestMain(m *testing.M) { lab.Main(m) }

// TestWhatMakeBuildsIsThere says once what is missing, instead of failing everywhere.
func TestWhatMakeBuildsIsThere(t *testing.T) {
	if _, err := os.Stat(filepath.Join(site.Root(t), "bin/ferry")); err != nil {
		t.Fatalf("%v: run make build", err)
	}
}
