package agent

import (
	"context"
	"time"
)

// MethodCheck runs a command as root, as one of a node's checks. Result: CheckResult.
const MethodCheck Method = "check"

// CheckRequest is the command that MethodCheck runs.
type CheckRequest struct {
	Argv    []string `json:"argv"`
	Timeout int      `json:"timeout"` // seconds
}

// MaxCheck is the longest timeout of a check that the agent accepts, in seconds.
const MaxCheck = 3600

// CheckLines is how much of what a check wrote is kept: its last lines.
const CheckLines = 20

// CheckResult is how a check's command ended.
type CheckResult struct {
	Status   int      `json:"status"`    // its exit status, or -1 if there is none
	Output   []string `json:"output"`    // the last lines of what it wrote on both streams, cleaned
	TimedOut bool     `json:"timed_out"` // it was ended because its time was over
	Error    string   `json:"error"`     // why there is no status: it could not be started, or was killed
}

// Check runs argv on the target as root, with a time limit in whole seconds. An error means that it is not known how it
// ended.
func (s *Session) Check(ctx context.Context, argv []string, timeout time.Duration) (CheckResult, error) {
	r := Request{Method: MethodCheck, Check: &CheckRequest{Argv: argv, Timeout: int(timeout / time.Second)}}
	response, err := s.request(ctx, r, nil, nil, nil)
	if err != nil || response.Check == nil {
		return CheckResult{}, orMissing(err)
	}
	return *response.Check, nil
}
