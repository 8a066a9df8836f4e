package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// Both locks are on a file system that a reboot empties. They are the kernel's (flock), so they die with their holders.
const (
	// lockFile is held by the agent of a deployment for its whole life.
	lockFile = machine.RunFolder + "/lock"
	// workFile is held by a job for its whole life, which may be longer than its agent's.
	workFile = machine.RunFolder + "/work"
)

// lock is a held lock.
type lock struct {
	file *os.File
	// resumed says that an agent of the same session held it last.
	resumed bool
}

// holding is what the holder writes into the lock file.
type holding struct {
	agent.Lock
	Pid     int    `json:"pid"`
	Session string `json:"session"`
	// SSHD is the process that ends when the agent's connection does.
	SSHD machine.ProcessID `json:"sshd,omitzero"`
}

const (
	// takeOver is how long an agent of the same deployment may take to end.
	takeOver = 10 * time.Second
	// leaving is how long an agent may take to notice that its deployment is over: ferry does not wait for it.
	leaving = time.Second
)

// takeLock takes the agents' lock, or tells who holds it, or who has a job at work. An agent of the same session that has not
// noticed yet that its connection is gone is ended first, and one of another session that is deserted.
func takeLock(r machine.Root, opts Options, now time.Time) (*lock, *agent.Lock, error) {
	file, err := openLock(r.Path(lockFile))
	if err != nil {
		return nil, nil, err
	}
	mine := holding{Lock: agent.Lock{Who: opts.Who, Since: now.Unix(), From: findConnection(r).clientHost()}, Pid: os.Getpid(), Session: opts.Session, SSHD: findSSHD()}
	within := cmp.Or(opts.takeOver, takeOver)
	before := predecessor{handle: -1, within: within}
	defer before.close()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		free, err := machine.TryLock(file)
		if err != nil {
			_ = file.Close()
			return nil, nil, err
		}
		if free && machine.IsCurrent(file) {
			break
		}
		if free {
			_ = file.Close()
			if file, err = openLock(r.Path(lockFile)); err != nil {
				return nil, nil, err
			}
			continue
		}
		held := readHolding(file)
		same, waited := held.Session != "" && held.Session == opts.Session, time.Since(start)
		if before.pid != 0 && before.pid != held.Pid {
			before.close()
			before = predecessor{handle: -1, within: within}
		}
		ends := false
		if !before.asked.IsZero() || same || deserted(file, held) {
			ends = before.end(file, held.Pid, time.Now())
		}
		if waited > within+killGrace || !ends && waited > cmp.Or(opts.leaving, leaving) {
			_ = file.Close()
			return nil, &held.Lock, nil
		}
	}
	if held := atWork(r); held != nil && held.Session != opts.Session {
		_ = file.Close()
		return nil, &held.Lock, nil
	}
	resumed := opts.Session != "" && readHolding(file).Session == opts.Session
	if err := writeHolding(file, mine); err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	taken := &lock{file, resumed}
	taken.stamp()
	return taken, nil, nil
}

// lockWork takes the jobs' lock for job, and waits while another job is at work: two of them would write over each other.
func lockWork(r machine.Root, job Job, now time.Time) (*lock, error) {
	return flockWork(r, job, now, syscall.LOCK_EX)
}

// tryLockWork is lockWork that does not wait: nil if another job is at work.
func tryLockWork(r machine.Root, job Job, now time.Time) (*lock, error) {
	work, err := flockWork(r, job, now, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return work, err
}

func flockWork(r machine.Root, job Job, now time.Time, how int) (*lock, error) {
	file, err := openLock(r.Path(workFile))
	if err != nil {
		return nil, err
	}
	for err = machine.Flock(file, how); err == nil && !machine.IsCurrent(file); err = machine.Flock(file, how) {
		_ = file.Close()
		if file, err = openLock(r.Path(workFile)); err != nil {
			return nil, err
		}
	}
	if err == nil {
		err = writeHolding(file, holding{
			Lock: agent.Lock{Who: job.Who, Since: now.Unix(), From: job.Server.clientHost(), Bundle: string(job.Bundle)},
			Pid:  os.Getpid(), Session: job.Session,
		})
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("take the lock: %w", err)
	}
	return &lock{file: file}, nil
}

// atWork tells whose job is at work; nil: none is.
func atWork(r machine.Root) *holding {
	file, err := openLock(r.Path(workFile))
	if err != nil {
		return nil
	}
	defer file.Close()
	if !errors.Is(syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		return nil
	}
	held := readHolding(file)
	return &held
}

func openLock(path string) (*os.File, error) {
	if err := machine.OwnFolder(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("take the lock: %w", err)
	}
	// An older bundle's script made it so that everybody could open it, and refuse deployments by holding it.
	if _, err := os.Lstat(path); err == nil && !machine.IsPrivate(path) && machine.UsedByRoot(path, true) == "" {
		if err := machine.ReplaceLock(path, filepath.Join(filepath.Dir(path), filepath.Base(turnFile))); err != nil {
			return nil, fmt.Errorf("take the lock: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the lock: %w", err)
	}
	return file, nil
}

func writeHolding(file *os.File, mine holding) error {
	text, err := json.Marshal(mine)
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.WriteAt(text, 0)
	}
	if err != nil {
		return fmt.Errorf("take the lock: %w", err)
	}
	return nil
}

func readHolding(file *os.File) holding {
	var held holding
	// A holder that is just writing leaves something unreadable: it is locked all the same.
	if data, err := io.ReadAll(io.NewSectionReader(file, 0, 4<<10)); err == nil {
		_ = json.Unmarshal(data, &held)
	}
	return held
}

func (l *lock) release() { _ = l.file.Close() }
