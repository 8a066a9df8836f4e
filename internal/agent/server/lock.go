package server

import (
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

// lockFile is on a file system that a reboot empties. The lock itself is the kernel's (flock), so it dies with its holder.
const lockFile = "/run/ferry/lock"

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
}

// takeLock takes the lock, or tells who holds it. An agent of the same session that has not noticed yet that its
// connection is gone is ended first.
func takeLock(path string, opts Options, now time.Time) (*lock, *agent.Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, fmt.Errorf("take the lock: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("take the lock: %w", err)
	}
	ended := false
	for deadline := now.Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = file.Close()
			return nil, nil, fmt.Errorf("take the lock: %w", err)
		}
		held := readHolding(file)
		if held.Session == "" || held.Session != opts.Session || time.Now().After(deadline) {
			_ = file.Close()
			return nil, &held.Lock, nil
		}
		if !ended && held.Pid > 1 {
			ended = true
			_ = syscall.Kill(held.Pid, syscall.SIGTERM)
		}
	}
	resumed := opts.Session != "" && readHolding(file).Session == opts.Session
	mine, err := json.Marshal(holding{Lock: agent.Lock{Who: opts.Who, Since: now.Unix()}, Pid: os.Getpid(), Session: opts.Session})
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.WriteAt(mine, 0)
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("take the lock: %w", err)
	}
	return &lock{file, resumed}, nil, nil
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
