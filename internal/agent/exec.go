package agent

import (
	"context"
	"io"
)

// MethodExec runs a command as root. Log: what it writes on both streams. Result: ExecResult.
const MethodExec Method = "exec"

// ExecResult is how a command ended.
type ExecResult struct {
	Status int    `json:"status"` // its exit status, or -1 if there is none
	Error  string `json:"error"`  // why there is none: it could not be started, or was killed
}

// Exec runs argv on the target as root, without input; what it writes on both streams goes to out. An error means that it is
// not known how it ended.
func (s *Session) Exec(ctx context.Context, argv []string, out io.Writer) (ExecResult, error) {
	response, err := s.request(ctx, Request{Method: MethodExec, Argv: argv}, nil, nil, out)
	if err != nil || response.Exec == nil {
		return ExecResult{}, orMissing(err)
	}
	return *response.Exec, nil
}
