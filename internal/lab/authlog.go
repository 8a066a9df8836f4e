package lab

import (
	"context"
	"strings"
)

// Authentications counts the logins over ssh since the machine was made.
func (t *Target) Authentications(ctx context.Context) (int, error) {
	log, err := t.ReadFile(ctx, sshdLog)
	return strings.Count(string(log), "\nAccepted "), err
}

// Elevations counts the commands run by sudo and doas since the machine was made, and not the attempts that failed. A
// machine without systemd keeps no log of doas.
func (t *Target) Elevations(ctx context.Context) (int, error) {
	sudo, err := t.ReadFile(ctx, sudoLog)
	if err != nil {
		return 0, err
	}
	n := countSudo(string(sudo))
	if t.opts.NoSystemd {
		return n, nil
	}
	doas, err := t.Output(ctx, "journalctl", "--quiet", "--output=cat", "--identifier=doas", "--no-pager")
	return n + strings.Count(string(doas), " ran command "), err
}

// AuthLog is what sshd and sudo have logged since the machine was made.
func (t *Target) AuthLog(ctx context.Context) (string, error) {
	out, err := t.Output(ctx, "cat", "--", sshdLog, sudoLog)
	return string(out), err
}

// countSudo counts the commands that sudo has run. A line is "date : user : REASON ; TTY=… ; PWD=… ; COMMAND=…", where
// there is a reason only if it did not run it, and a TTY only if there was one.
func countSudo(log string) int {
	n := 0
	for line := range strings.Lines(log) {
		f := strings.SplitN(line, " : ", 3)
		if len(f) == 3 && strings.Contains(f[2], "COMMAND=") && (strings.HasPrefix(f[2], "TTY=") || strings.HasPrefix(f[2], "PWD=")) {
			n++
		}
	}
	return n
}
