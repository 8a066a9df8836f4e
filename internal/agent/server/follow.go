package server

import (
	"cmp"
	"context"
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

const (
	// beginGrace is how long a job may take from being asked for to its beginning, on a slow and busy machine.
	beginGrace = 30 * time.Second
	// followPause is how often the log is looked at, in the beginning and later: most jobs are over soon.
	followPause      = 3 * time.Millisecond
	followPauseLater = 25 * time.Millisecond
	followSoon       = 2 * time.Second
	// alivePause is how often it is checked that the job's process is still there.
	alivePause = time.Second
)

// watch is what else than the log is followed of a job.
type watch struct {
	// look is called before each piece of the log is passed on, pass after it; true from pass ends the following with errEnough.
	look func()
	pass func() (enough bool, err error)
	// died is called when the job's process is gone without a status; true says that somebody else goes on with the job.
	died func() bool
}

// errEnough ends the following of a job that goes on.
var errEnough = errors.New("the job has come as far as was asked for")

// follow passes the log of the job in dir on, from the byte offset, until the job has ended. A job that does not begin is
// kept from beginning later: errNeverBegan. w may be nil.
func (s *server) follow(ctx context.Context, dir string, offset int64, w *watch) (jobStatus, error) {
	log, err := os.Open(filepath.Join(dir, logFile))
	if err != nil {
		return jobStatus{}, err
	}
	defer log.Close()
	if _, err := log.Seek(offset, io.SeekStart); err != nil {
		return jobStatus{}, err
	}
	start := time.Now()
	lastCheck := start
	for {
		// In this order: what is in the log when the status is there is the whole log.
		status, ended, err := readStatus(dir)
		if err != nil {
			return jobStatus{}, err
		}
		if w != nil {
			w.look()
		}
		if err := s.passOn(log); err != nil {
			return jobStatus{}, err
		}
		if ended {
			return status, nil
		}
		if w != nil {
			if enough, err := w.pass(); err != nil {
				return jobStatus{}, err
			} else if enough {
				return jobStatus{}, errEnough
			}
		}
		if now := time.Now(); now.Sub(lastCheck) > alivePause {
			lastCheck = now
			switch dead, err := s.isDead(dir, now.Sub(start)); {
			case err != nil:
				return jobStatus{}, err
			case dead && w != nil && w.died():
			case dead:
				return s.lastWords(dir, log)
			}
		}
		pause := followPause
		if time.Since(start) > followSoon {
			pause = followPauseLater
		}
		select {
		case <-ctx.Done():
			return jobStatus{}, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// isDead tells whether a job that has no status has begun and is not there any more.
func (s *server) isDead(dir string, waited time.Duration) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, begunFile)); err == nil {
		return !running(dir), nil
	}
	if waited > cmp.Or(s.opts.beginGrace, beginGrace) && claim(dir) {
		return false, errNeverBegan
	}
	return false, nil
}

// lastWords ends the following of a job that is not there any more: it may have ended well since the last look.
func (s *server) lastWords(dir string, log io.Reader) (jobStatus, error) {
	status, ended, err := readStatus(dir)
	if err != nil {
		return jobStatus{}, err
	}
	if err := s.passOn(log); err != nil {
		return jobStatus{}, err
	}
	if !ended {
		status = jobStatus{Status: -1, Error: "it was killed", Unclean: true}
	}
	return status, nil
}

// passOn sends what the log has got since the last time.
func (s *server) passOn(log io.Reader) error {
	buffer := make([]byte, 32<<10)
	for {
		n, err := log.Read(buffer)
		if n > 0 {
			// A lost connection ends this agent and not the job.
			if err := s.wire.Write(agent.FrameLog, buffer[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// running tells whether the job's process is there: it holds the job's lock.
func running(dir string) bool {
	file, err := openJobLock(dir)
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

func readStatus(dir string) (status jobStatus, ended bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, statusFile))
	if errors.Is(err, os.ErrNotExist) {
		return jobStatus{}, false, nil
	}
	if err != nil {
		return jobStatus{}, false, err
	}
	if err := json.Unmarshal(text, &status); err != nil {
		return jobStatus{}, false, fmt.Errorf("status of the job in %s: %w", dir, err)
	}
	return status, true, nil
}
