package agent

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"ferry/internal/run"
)

// bootstrapRefused is what the outer shell says on a terminal when elevate has ended without making root of the user. It
// then waits for a line: "again" makes it try again.
const bootstrapRefused = "ferry-bootstrap: refused"

// maxAttempts is how often a password is asked for where elevate itself gives up after one; sudo asks as often.
const maxAttempts = 3

// elevateCommand is what makes root on the target, as people call it.
func elevateCommand(elevate []string) string {
	if len(elevate) == 0 {
		return "sudo"
	}
	return path.Base(elevate[0])
}

// asksOnTerminal tells whether elevate may ask for a password on a terminal only. sudo can be told not to. Whether another
// command will ask at all shows only when it runs, and then it is too late for a terminal.
func asksOnTerminal(elevate []string) bool { return elevateCommand(elevate) != "sudo" }

// terminalLine makes the one command line that starts the agent under elevate on a terminal. The terminal is raw, so that
// passwords and frames pass as they are, and nothing is echoed, before it says marker; only then ferry takes anything for a
// question. Where the target gives no terminal, elevate has to do without. Both the script and the agent never end with 1,
// which is what doas and its like do when the password was wrong. What elevate asks shall be in English.
func terminalLine(elevate []string, marker, script string) string {
	const shell = `s=$1; m=$2; shift 2; if [ -t 0 ]; then stty raw -echo || exit 69; echo "$m"; fi; ` +
		`if [ $(id -u) = 0 ]; then exec /bin/sh -c "$s"; fi; [ -t 0 ] || exec "$@" /bin/sh -c "$s"; ` +
		`while LC_ALL=C "$@" /bin/sh -c "$s"; r=$?; [ $r = 1 ]; do echo ` + bootstrapRefused + `; read -r a; [ "$a" = again ] || break; done; exit $r`
	return run.QuoteAll(append([]string{"sh", "-c", shell, "ferry", script, marker}, elevate...))
}

// questions reads what a terminal shows and notices questions for a password in it, from the marker on and until the agent
// speaks. It passes everything on.
type questions struct {
	io.ReadCloser
	marker string
	asked  chan<- struct{}

	// Who ends a session reads the rest while the reader of lines may not have noticed yet.
	mu        sync.Mutex
	line      []byte // what stands behind the last line's end, or the last question
	listening bool
	over      bool
}

func (q *questions) Read(p []byte) (int, error) {
	n, err := q.ReadCloser.Read(p)
	q.look(p[:n])
	return n, err
}

func (q *questions) look(p []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.over {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		if q.line = append(q.line, line...); !ended {
			break
		}
		whole := bytes.TrimRight(q.line, "\r")
		q.over = bytes.HasSuffix(whole, []byte(Magic))
		q.listening = q.listening || bytes.HasSuffix(whole, []byte(q.marker))
		q.line, p = q.line[:0], rest
	}
	switch {
	case q.over:
		q.line = nil
	case q.listening && isQuestion(q.line):
		q.line = q.line[:0]
		select {
		case q.asked <- struct{}{}:
		default:
		}
	case len(q.line) > maxLine:
		// Nobody asks at such length: whoever reads the lines ends the connection.
		q.line = q.line[:0]
	}
}

// isQuestion tells whether a line without an end asks for a password: "Password: ", "doas (alice@pi) password: ".
func isQuestion(line []byte) bool {
	line = bytes.TrimRight(line, " ")
	return bytes.HasSuffix(line, []byte(":")) && bytes.Contains(line, []byte("assword"))
}

// talk is what has been said on the target's terminal before the agent spoke; nil where there is no terminal.
type talk struct {
	answered bool // a password was sent that nothing was said about yet
	attempts int  // passwords that were sent
}

// heard keeps a line that is not ferry's own for the error that may follow. One with a question may have more on it, if the
// target should echo what it was answered.
func (s *Session) heard(line string) {
	if s.talk == nil || strings.HasSuffix(line, s.watch.marker) {
		return
	}
	if before, _, found := strings.Cut(line, "assword"); found && strings.Contains(line[len(before):], ":") {
		return
	}
	s.watch.pass([]byte(line + "\n"))
}

// refused answers the outer shell when elevate has refused.
func (s *Session) refused() {
	answer := "no"
	if s.talk.answered && s.talk.attempts < maxAttempts {
		answer = "again"
		s.talk.answered = false
	}
	// A failed write is a connection that ends: the reader finds out why.
	_, _ = fmt.Fprintln(s.channel.In, answer)
}

// withoutFarewell takes away what ssh says at the end of every session on a terminal.
func withoutFarewell(lines []string) []string {
	kept := lines[:0]
	for _, line := range lines {
		if !strings.HasPrefix(line, "Connection to ") || !strings.HasSuffix(line, " closed.") {
			kept = append(kept, line)
		}
	}
	return kept
}
