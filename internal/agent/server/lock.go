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
)

// Both locks are on a file system that a reboot empties. They are the kernel's (flock), so they die with their holders.
const (
	// lockFile is held by the agent of a deployment for its whole life.
	lockFile = jobsFolder + "/lock"
	// workFile is held by a job for its whole life, which may be longer than its agent's.
	workFile = jobsFolder + "/work"
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
	SSHD processID `json:"sshd,omitzero"`
}

const (
	// takeOver is how long an agent of the same deployment may take to end.
	takeOver = 10 * time.Second
	// leaving is how long an agent may take to notice that its deployment is over: ferry does not wait for it.
	leaving = time.Second
)

// takeLock takes the agents' lock, or tells who holds it, or who has a job at work. An agent of the same session that has not
// noticed yet that its connection is gone is ended first, and one of another session that is deserted.
func takeLock(r root, opts Options, now time.Time) (*lock, *agent.Lock, error) {
	file, err := openLock(r.path(lockFile))
	if err != nil {
		return nil, nil, err
	}
	mine := holding{Lock: agent.Lock{Who: opts.Who, Since: now.Unix(), From: findConnection(r).clientHost()}, Pid: os.Getpid(), Session: opts.Session, SSHD: findSSHD()}
	within := cmp.Or(opts.takeOver, takeOver)
	before := predecessor{handle: -1, within: within}
	defer before.close()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		free, err := tryLock(file)
		if err != nil {
			_ = file.Close()
			return nil, nil, err
		}
		if free && isCurrent(file) {
			break
		}
		if free {
			_ = file.Close()
			if file, err = openLock(r.path(lockFile)); err != nil {
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
func lockWork(r root, job Job, now time.Time) (*lock, error) {
	return flockWork(r, job, now, syscall.LOCK_EX)
}

// tryLockWork is lockWork that does not wait: nil if another job is at work.
func tryLockWork(r root, job Job, now time.Time) (*lock, error) {
	work, err := flockWork(r, job, now, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return work, err
}

func flockWork(r root, job Job, now time.Time, how int) (*lock, error) {
	file, err := openLock(r.path(workFile))
	if err != nil {
		return nil, err
	}
	for err = flock(file, how); err == nil && !isCurrent(file); err = flock(file, how) {
		_ = file.Close()
		if file, err = openLock(r.path(workFile)); err != nil {
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
func atWork(r root) *holding {
	file, err := openLock(r.path(workFile))
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
	if err := ownFolder(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("take the lock: %w", err)
	}
	// An older bundle's script made it so that everybody could open it, and refuse deployments by holding it.
	if _, err := os.Lstat(path); err == nil && !isPrivate(path) && rootUses(path, true) == "" {
		if err := replaceLock(path, filepath.Join(filepath.Dir(path), filepath.Base(turnFile))); err != nil {
			return nil, fmt.Errorf("take the lock: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the lock: %w", err)
	}
	return file, nil
}

// isCurrent tells whether a file is the one that has its name: another one may have taken its place since it was opened.
func isCurrent(file *os.File) bool {
	mine, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(file.Name())
	return err == nil && os.SameFile(mine, there)
}

func flock(file *os.File, how int) error { return syscall.Flock(int(file.Fd()), how) }

func tryLock(file *os.File) (free bool, err error) {
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take the lock: %w", err)
	}
	return true, nil
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
