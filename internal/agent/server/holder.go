package server

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"

	"golang.org/x/sys/unix"
)

// An agent that holds the lock stamps it every agent.BeatPause, with the time since the machine has begun, as the file's time: a
// clock that is set changes nothing, and a reader never finds half of it. One whose stamp is older than holderLimit does not
// run any more.
const holderLimit = 6 * agent.BeatPause

// goneGrace is how long an agent goes on whose answers nobody takes.
const goneGrace = 30 * time.Second

// killGrace is how long a process that is killed may take to be gone.
const killGrace = 5 * time.Second

// stamp says that the holder of the lock is at work.
func (l *lock) stamp() {
	now := unix.NsecToTimeval(machine.Uptime() * int64(time.Millisecond))
	// An agent without a stamp is one that nobody ends.
	_ = unix.Futimes(machine.FD(l.file), []unix.Timeval{now, now})
}

// stampAge is how long ago a lock was stamped; 0 if it was not, or not yet.
func stampAge(file *os.File) time.Duration {
	info, err := file.Stat()
	if err != nil {
		return 0
	}
	// Who takes a lock writes into it first: until it is stamped, its time is the clock's.
	return max(0, time.Duration(machine.Uptime()-info.ModTime().UnixMilli())*time.Millisecond)
}

// findSSHD is the process of sshd's that this agent's connection ends at; empty without one.
func findSSHD() machine.ProcessID {
	r, pid := machine.Root{}, os.Getpid()
	for range machine.MaxAncestors {
		p, ok := r.Process(pid)
		if !ok || p.PID == 1 {
			break
		}
		if strings.HasPrefix(p.Name, "sshd") {
			return machine.ProcessID{Pid: p.PID, Start: r.StartTicks(p.PID)}
		}
		pid = p.Parent
	}
	return machine.ProcessID{}
}

// predecessor is the agent that holds a lock which another one wants.
type predecessor struct {
	within time.Duration // it has to end by itself
	pid    int
	handle int // a pidfd; -1: the kernel has none
	silent bool
	asked  time.Time // when it was told to end; zero: it was not
	killed bool
}

// deserted tells whether nobody uses the holder of a lock any more: its ssh is gone, or it does not run. A job is none: it has a
// lock of its own, and is left alone whatever becomes of its agent.
func deserted(file *os.File, held holding) bool {
	return mayEnd(held.Pid) && (machine.IsGone(held.SSHD) || isSilent(file, held.Pid))
}

func isSilent(file *os.File, pid int) bool {
	return stampAge(file) > holderLimit || strings.ContainsAny(machine.Root{}.ProcessState(pid), "Tt")
}

// end tells the holder to end, and kills it if it did not run when it was told and has not ended in time. It may be called again
// and again, and tells whether it makes sense to go on waiting.
func (p *predecessor) end(file *os.File, pid int, now time.Time) bool {
	if p.asked.IsZero() {
		// With the handle open, what is found out about the number is about the process.
		handle, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			handle = -1
		}
		p.pid, p.handle = pid, handle
		if errors.Is(err, unix.ESRCH) || !mayEnd(pid) {
			p.close()
			return true
		}
		p.silent, p.asked = isSilent(file, pid), now
		p.signal(unix.SIGTERM)
		// One that is stopped hears of it only when it goes on.
		p.signal(unix.SIGCONT)
		return true
	}
	waited := now.Sub(p.asked)
	if waited > p.within && p.silent && !p.killed {
		p.killed = true
		p.signal(unix.SIGKILL)
	}
	return waited <= p.within || p.killed && waited <= p.within+killGrace
}

func (p *predecessor) signal(signal unix.Signal) {
	switch {
	case p.handle >= 0:
		_ = unix.PidfdSendSignal(p.handle, signal, nil, 0)
	case mayEnd(p.pid):
		_ = unix.Kill(p.pid, signal)
	}
}

func (p *predecessor) close() {
	if p.handle >= 0 {
		_ = unix.Close(p.handle)
	}
	p.handle = -1
}

// isAgent tells whether a process is an agent of ferry's: what stands in a lock file may be older than its holder.
func isAgent(pid int) bool {
	if pid <= 1 || pid == os.Getpid() {
		return false
	}
	mine, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return false
	}
	exe := "/proc/" + strconv.Itoa(pid) + "/exe"
	program, err := os.Readlink(exe)
	if err != nil {
		return false
	}
	// By another name it is the same file.
	this, thisErr := os.Stat("/proc/self/exe")
	that, thatErr := os.Stat(exe)
	return filepath.Dir(program) == filepath.Dir(mine) || thisErr == nil && thatErr == nil && os.SameFile(this, that)
}

// mayEnd tells whether a process is an agent that serves a ferry. What the same program does otherwise is not ended: it is at work on a
// switch, or in a rollback.
func mayEnd(pid int) bool {
	if !isAgent(pid) {
		return false
	}
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	argv := strings.Split(string(line), "\x00")
	return err == nil && len(argv) > 1 && argv[1] == "serve"
}

// beat keeps a ferry that waits for an answer sure that the agent is at work, and the stamp of the lock that is held new, until over is closed. What
// ferry does not take any more is not answered: gone is called, if it is set.
func (s *server) beat(held *lock, over <-chan struct{}, pause, grace time.Duration) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if held != nil {
			held.stamp()
		}
		select {
		case <-over:
			return
		case <-ticker.C:
		}
		if !s.working.Load() || s.wire.Write(agent.FrameAlive, nil) == nil {
			continue
		}
		if s.opts.Gone == nil {
			return
		}
		// Whoever reads the stream of a ship finds out by himself, and may keep what has come.
		select {
		case <-over:
		case <-time.After(grace):
			s.opts.Gone()
		}
		return
	}
}
