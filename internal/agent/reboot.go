package agent

import (
	"context"
	"io"
	"time"
)

// BootOnceResult is how a target took it that it was told to try a system, or to forget about one.
type BootOnceResult struct {
	// Status is that of switch-to-configuration boot; 1 also for what else went wrong, which is in Error. All is as it was
	// before, and the target does not reboot, unless Status is 0 or Unclean set.
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"`
	// Unclean says that not all of it could be undone.
	Unclean bool   `json:"unclean,omitempty"`
	Log     string `json:"log"`
}

// BootedResult is a target after its boot.
type BootedResult struct {
	// Finished says that the boot is over, whether all went well or not.
	Finished bool     `json:"finished"`
	Failed   []string `json:"failed,omitempty"` // units that are in the failed state
	// Before are the units that were in that state before a system that is tried was booted.
	Before []string `json:"before,omitempty"`
}

// BootOnce reboots the target into r.Toplevel, once: its boot default stays what it was until a commit. A system that is not
// committed within back of its boot reboots the target. The target does all that by itself once it was asked; the answer
// may be lost with the connection, and be asked for again in the same boot. What it has to say goes to log.
func (s *Session) BootOnce(ctx context.Context, r Request, back time.Duration, log io.Writer) (BootOnceResult, error) {
	r.Method, r.Action, r.Within = MethodBootOnce, "try", int(back.Seconds())
	return s.bootOnce(ctx, r, log)
}

// ForgetBootOnce removes what is left of BootOnce on a target that runs the old system.
func (s *Session) ForgetBootOnce(ctx context.Context, r Request, log io.Writer) (BootOnceResult, error) {
	r.Method, r.Action = MethodBootOnce, "forget"
	return s.bootOnce(ctx, r, log)
}

func (s *Session) bootOnce(ctx context.Context, r Request, log io.Writer) (BootOnceResult, error) {
	if log == nil {
		log = io.Discard
	}
	response, err := s.request(ctx, r, nil, nil, log)
	if err != nil || response.BootOnce == nil {
		return BootOnceResult{}, orMissing(err)
	}
	return *response.BootOnce, nil
}

// Reboot asks the target to reboot. The answer may come, or be lost with the connection.
func (s *Session) Reboot(ctx context.Context, r Request) error {
	r.Method = MethodReboot
	_, err := s.request(ctx, r, nil, nil, io.Discard)
	return err
}

// Booted waits until the target has finished booting, at most for limit.
func (s *Session) Booted(ctx context.Context, limit time.Duration) (BootedResult, error) {
	response, err := s.request(ctx, Request{Method: MethodBooted, Within: int(limit.Seconds())}, nil, nil, nil)
	if err != nil || response.Booted == nil {
		return BootedResult{}, orMissing(err)
	}
	return *response.Booted, nil
}
