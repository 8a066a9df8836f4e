package server

import (
	"context"
	"errors"
	"io"
	"os"

	"ferry/internal/agent/machine"

	"golang.org/x/sys/unix"
)

// interruptible is an input whose reading ends with a context: what a blocked read of a pipe does not.
type interruptible struct {
	in   *os.File
	ctx  context.Context
	wake *os.File // has ended when ctx has
}

// endWith makes reading in end with ctx, if in is a file; forget frees what that takes, when nobody reads any more.
func endWith(ctx context.Context, in io.Reader) (reader io.Reader, forget func(), err error) {
	file, ok := in.(*os.File)
	if !ok {
		return in, func() {}, nil
	}
	wake, held, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = held.Close() })
	return &interruptible{file, ctx, wake}, func() {
		stop()
		_ = held.Close()
		_ = wake.Close()
	}, nil
}

// Read reads from the input once there is something, or gives the context's error.
func (i *interruptible) Read(p []byte) (int, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(machine.FD(i.in)), Events: unix.POLLIN}, {Fd: int32(machine.FD(i.wake)), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case fds[1].Revents != 0:
			return 0, context.Cause(i.ctx)
		}
		return i.in.Read(p)
	}
}
