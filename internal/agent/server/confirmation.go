package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// awaitConfirmation waits until ferry has come back and is content, and gives the reason to roll back otherwise.
func (g *guard) awaitConfirmation(ctx context.Context) string {
	limits := g.job.Switch.Limits
	if err := g.enter(agent.Waiting, seconds(limits.Confirm)); err != nil {
		return run.Clean(err.Error())
	}
	// The first timer counts on the activation, which is over.
	rearmed := make(chan error, 1)
	go func() { rearmed <- g.timers.rearm(ctx, unconfirmed, seconds(limits.Confirm+limits.Checks)+guardSlack) }()
	defer func() {
		if err := <-rearmed; err != nil {
			g.say("the rollback timer could not be set anew: %v", err)
		}
	}()
	said, inTime := g.listen(func(v instruction) bool { return v.Verdict != "" || g.tokenIsThere() })
	switch {
	case !inTime:
		return fmt.Sprintf("ferry could not come back over a new connection within %v", seconds(limits.Confirm))
	case said.Verdict == agent.VerdictBack:
		return said.reason()
	case limits.Checks == 0 || said.Verdict == agent.VerdictKeep:
		return g.judgeUnits(ctx, false)
	}
	if err := g.enter(agent.Confirmed, seconds(limits.Checks)); err != nil {
		return run.Clean(err.Error())
	}
	said, inTime = g.listen(func(v instruction) bool { return v.Verdict == agent.VerdictKeep || v.Verdict == agent.VerdictBack })
	switch {
	case !inTime:
		return fmt.Sprintf("ferry did not say within %v how the checks went", seconds(limits.Checks))
	case said.Verdict == agent.VerdictBack:
		return said.reason()
	}
	return g.judgeUnits(ctx, false)
}

// listen waits until enough of what ferry has said is there, or the phase's time is up.
func (g *guard) listen(enough func(instruction) bool) (instruction, bool) {
	for {
		// In this order: what comes at the last moment counts.
		late := machine.Uptime() > g.state.Deadline
		v := readVerdict(g.dir)
		if enough(v) {
			return v, true
		}
		if late {
			return v, false
		}
		select {
		case <-g.leave:
			g.left = true
			return v, false
		case <-time.After(g.pause):
		}
		// Most confirmations come soon.
		if g.pause < 25*time.Millisecond {
			g.pause += 100 * time.Microsecond
		}
	}
}

// instruction is what the file verdict says.
type instruction struct {
	Verdict agent.Verdict `json:"verdict"`
	Reason  string        `json:"reason,omitempty"`
}

func (v instruction) reason() string { return cmp.Or(run.Clean(v.Reason), "ferry asked to roll back") }

func readVerdict(dir string) (v instruction) {
	if text, err := os.ReadFile(filepath.Join(dir, verdictFile)); err == nil {
		// It is written whole by root.
		_ = json.Unmarshal(text, &v)
	}
	return v
}

// maxToken is how long a token may be, in bytes.
const maxToken = 256

// tokenIsThere tells whether the login user has written the token. The folder is theirs: whatever is in it may be anything.
func (g *guard) tokenIsThere() bool {
	// Root's own, and short: one for each ferry that follows.
	expected, err := os.ReadDir(filepath.Join(g.dir, expectFolder))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(expected, func(e os.DirEntry) bool { return jobName.MatchString(e.Name()) && g.isConfirmedBy(e.Name()) })
}

// isConfirmedBy tells whether the token of this name has been written.
func (g *guard) isConfirmedBy(name string) bool {
	want, err := os.ReadFile(filepath.Join(g.dir, expectFolder, name))
	if err != nil {
		return false
	}
	folder := filepath.Join(g.dir, confirmFolder)
	theirs, err := os.Lstat(folder)
	if err != nil {
		return false
	}
	// Not to wait for the other side of a pipe.
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	// Theirs, or written by root, who may be the login user of a ferry that has attached.
	if owner := machine.OwnerOf(info); owner != machine.OwnerOf(theirs) && owner != os.Geteuid() {
		return false
	}
	token, err := io.ReadAll(io.LimitReader(file, maxToken))
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(string(token))))
	return hex.EncodeToString(sum[:]) == string(want)
}
