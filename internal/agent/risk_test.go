package agent

import (
	"errors"
	"testing"
)

// TestRisksAreCleanedAndNotEndless locks what a target may say of them.
func TestRisksAreCleanedAndNotEndless(t *testing.T) {
	s := open(t, "serves")
	risks, err := s.CheckLockout(soon(t), pathA, "switch")
	if err != nil || len(risks) != maxRisks {
		t.Fatalf("%d risks, %v", len(risks), err)
	}
	if want := (Risk{Kind: "port?", Text: "sshd moves?ferry: done"}); risks[0] != want {
		t.Errorf("%+v", risks[0])
	}
	s = open(t, "refuses early")
	var refused *ResponseError
	if _, err := s.CheckLockout(soon(t), pathA, "switch"); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
}
