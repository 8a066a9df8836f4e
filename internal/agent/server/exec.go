package server

import (
	"context"
	"errors"
	"os"
	"syscall"

	"ferry/internal/agent"
	"ferry/internal/run"
)

// exec runs a command of the user's. Nothing that it starts outlives it, but for what leaves its process group; when ferry is
// gone it is ended.
func (s *server) exec(ctx context.Context, r agent.Request) (*agent.ExecResult, error) {
	if s.opts.Busy != nil {
		s.opts.Busy.Lock()
		defer s.opts.Busy.Unlock()
	}
	ctx, gone := context.WithCancel(ctx)
	defer gone()
	out := agent.LogWriter{Wire: s.wire, Gone: gone}
	p, err := s.runner.Start(ctx, run.Command{
		Argv: r.Argv, Env: []string{"PATH=" + systemPath}, Dir: "/", Out: out, Err: out, OwnGroup: true, Grace: checkGrace,
	})
	if err == nil {
		err = p.Wait()
		_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	status, problem := ending(r.Argv, err)
	return &agent.ExecResult{Status: status, Error: problem}, nil
}

// ending tells how a command that was started with argv ended, from the error that running it gave: its exit status, or -1 and
// why there is none.
func ending(argv []string, err error) (status int, problem string) {
	var failed *run.Error
	switch {
	case err == nil, run.LeftOutputOpen(err):
		return 0, ""
	case errors.As(err, &failed) && failed.Status >= 0:
		return failed.Status, ""
	case errors.As(err, &failed) && failed.Signal() != 0:
		return -1, "killed by signal: " + failed.Signal().String()
	case run.NotFound(err), errors.Is(err, os.ErrNotExist):
		// The kernel says the same of a script.
		if _, err := os.Stat(argv[0]); err == nil {
			return -1, "the interpreter in its first line is not on the target"
		}
		return -1, "there is no such program on the target"
	}
	return -1, run.Clean(err.Error())
}
