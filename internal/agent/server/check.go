package server

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/run"
)

// checkGrace is how long a check's command may take to end when its time is over, and what it has left running to let go of
// its output.
const checkGrace = time.Second

// check runs a command of a node's checks. Nothing that it starts outlives it, but for what leaves its process group.
func (s *server) check(ctx context.Context, r agent.Request) (*agent.CheckResult, error) {
	if r.Check == nil {
		return nil, errors.New("a check without a command")
	}
	if r.Check.Timeout <= 0 || r.Check.Timeout > agent.MaxCheck {
		return nil, fmt.Errorf("a check of %d seconds is not allowed", r.Check.Timeout)
	}
	if s.opts.Busy != nil {
		s.opts.Busy.Lock()
		defer s.opts.Busy.Unlock()
	}
	limited, cancel := context.WithTimeout(ctx, time.Duration(r.Check.Timeout)*time.Second)
	defer cancel()
	said := &run.Tail{Limit: 64 << 10}
	result := new(agent.CheckResult)
	p, err := s.runner.Start(limited, run.Command{
		Argv: r.Check.Argv, Env: []string{"PATH=" + systemPath}, Dir: "/", Out: said, Err: said, OwnGroup: true, Grace: checkGrace,
	})
	if err == nil {
		err = p.Wait()
		// What is left of the group keeps its number from being used again.
		_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	}
	result.Output = run.LastLines(said.String(), agent.CheckLines)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && limited.Err() != nil && !run.LeftOutputOpen(err):
		result.Status, result.TimedOut = -1, true
	default:
		result.Status, result.Error = ending(r.Check.Argv, err)
	}
	return result, nil
}
