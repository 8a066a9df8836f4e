// Package deploy_test proves `ferry deploy` on real targets: real Nix, OpenSSH, sudo with a password, and systemd.
package deploy_test

import (
	"testing"

	"ferry/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
