package target

import (
	"bufio"
	"bytes"
	"context"
	"strings"

	"ferry/internal/run"
)

// LoginUser is the user that ssh logs in as at addr: the one that it names, else what the user's own configuration says; "" for
// this machine, and where ssh does not tell.
func (d *Dialer) LoginUser(ctx context.Context, addr Address) string {
	if addr.Local() || addr.User() != "" {
		return addr.User()
	}
	argv := append(append([]string{"ssh"}, d.config()...), "-G", "--", addr.String())
	out, err := d.Runner.Output(ctx, run.Command{Argv: argv})
	if err != nil {
		return ""
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if user, found := strings.CutPrefix(lines.Text(), "user "); found {
			return user
		}
	}
	return ""
}
