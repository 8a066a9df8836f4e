package session

import (
	"testing"

	"ferry/internal/agent/agenttest"
)

// TestMain lets this test program act as ssh.
func TestMain(m *testing.M) { agenttest.Main(m, nil, nil) }
