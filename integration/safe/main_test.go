// Package safe_test proves that a deployment does not take a machine away from its owner: on real targets, whatever is done to
// the network, to ferry, to its processes on the target and to the target itself, the target is left running the old system or
// the new one, whole and reachable, and never boots a system that was not confirmed.
package safe_test

import (
	"testing"

	"ferry/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
