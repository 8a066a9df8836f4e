package agent

import (
	"context"

	"ferry/internal/nix"
)

// RiskKind sorts the ways in which a new system may lock out the login that deploys it.
type RiskKind string

// The kinds of risks.
const (
	RiskSSHD     RiskKind = "sshd"     // it is off
	RiskPort     RiskKind = "port"     // it listens elsewhere
	RiskLogin    RiskKind = "login"    // it lets this user, or this way of logging in, in no more
	RiskUser     RiskKind = "user"     // gone, or without a shell
	RiskKey      RiskKind = "key"      // gone
	RiskSudo     RiskKind = "sudo"     // root cannot be had any more; doas as well
	RiskAddress  RiskKind = "address"  // that of this connection is gone
	RiskFirewall RiskKind = "firewall" // it lets this connection through no more
)

// Risk is something in the new system that may lock out the login in use.
type Risk struct {
	Kind RiskKind `json:"kind"`
	Text string   `json:"text"` // one line for people
}

// maxRisks is how many risks are taken from a target; there are not as many ways.
const maxRisks = 32

// CheckLockout compares what the target runs with the toplevel, which has been shipped, and tells what may lock out this very
// login, if it is activated by the action. Nothing is changed. What cannot be known is not told.
func (s *Session) CheckLockout(ctx context.Context, toplevel nix.StorePath, action string) ([]Risk, error) {
	response, err := s.request(ctx, Request{Method: MethodInspect, Toplevel: toplevel, Action: action}, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	return response.Risks, nil
}
