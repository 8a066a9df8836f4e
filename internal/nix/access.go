package nix

import (
	"errors"
	"runtime"
	"strings"

	"ferry/internal/run"
)

// AccessError means that Nix is installed, but this user gets at no store: a new installation is often like that.
type AccessError struct {
	Reason string
	Advice string
	Err    error
}

func (e *AccessError) Error() string { return e.Reason }

// Unwrap gives the command that failed.
func (e *AccessError) Unwrap() error { return e.Err }

// Hints says what the user can do about it.
func (e *AccessError) Hints() []string { return []string{e.Advice} }

// storeAccess makes an [AccessError] of a failed command whose messages say that the store is out of reach, and gives
// every other error back as it is. Nix has no other way to tell.
func storeAccess(err error) error {
	var failed *run.Error
	if !errors.As(err, &failed) {
		return err
	}
	for _, c := range []struct{ text, and, reason, advice string }{
		{"/daemon-socket/socket", "Permission denied", "this user may not talk to the Nix daemon",
			joinUsers(runtime.GOOS)},
		{"/daemon-socket/socket", "Connection refused", "the Nix daemon does not run", startDaemon(runtime.GOOS)},
		{"creating directory '/nix", "Permission denied", noDaemon, setUpDaemon(runtime.GOOS)},
		{"could not set permissions on '/nix/", "Operation not permitted", noDaemon, setUpDaemon(runtime.GOOS)},
	} {
		for line := range strings.Lines(failed.Stderr) {
			if strings.Contains(line, c.text) && strings.Contains(line, c.and) {
				return &AccessError{Reason: c.reason, Advice: c.advice, Err: err}
			}
		}
	}
	return err
}

const noDaemon = "only root may use Nix here: there is no Nix daemon"
