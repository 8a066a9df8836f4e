package nix

import (
	"fmt"
	"regexp"
	"strings"

	"ferry/internal/run"
)

// BuildError is a build that failed.
type BuildError struct {
	// Derivations are those that failed themselves, not those that only needed them. It is empty if Nix gave up for another
	// reason; Messages say which.
	Derivations []FailedDerivation
	Messages    []string // what Nix said, cleaned; a message may have several lines
	LogCommand  string   // prints the log of the first of Derivations; empty if there is none
	DiskFull    bool     // for want of space on the disk, as far as Nix can tell
	err         error
}

// FailedDerivation is one derivation that failed.
type FailedDerivation struct {
	Drv       StorePath
	Reason    string   // without the derivation's name: "failed with exit code 1"; it may have several lines
	LastLines []string // up to 20, what the builder wrote last, cleaned
	ran       bool     // so that there is a log
	platform  *mismatch
}

// mismatch is what a derivation needs and this machine is not.
type mismatch struct{ system string }

// Error names the first derivation that failed and why, in one line.
func (e *BuildError) Error() string {
	if len(e.Derivations) == 0 {
		first, _, _ := strings.Cut(e.Messages[len(e.Messages)-1], "\n")
		return first
	}
	d := e.Derivations[0]
	first, _, _ := strings.Cut(d.Reason, "\n")
	s := fmt.Sprintf("%s %s", derivationName(d.Drv), strings.TrimSuffix(first, ":"))
	if n := len(e.Derivations) - 1; n > 0 {
		s += fmt.Sprintf(", and %d more", n)
	}
	return s
}

// Unwrap gives the command's error.
func (e *BuildError) Unwrap() error { return e.err }

// Output is what the first derivation that failed wrote last, or else what Nix said, if that is more than Error says.
func (e *BuildError) Output() []string {
	if len(e.Derivations) > 0 {
		return e.Derivations[0].LastLines
	}
	last := strings.Split(e.Messages[len(e.Messages)-1], "\n")
	if len(last) == 1 {
		return nil
	}
	return last
}

// Hints says where the whole log is, and that of a full disk.
func (e *BuildError) Hints() []string {
	var hints []string
	if e.DiskFull {
		hints = append(hints, "this machine's disk is full: nix-collect-garbage makes room")
	}
	if e.LogCommand != "" {
		hints = append(hints, "the whole log: "+e.LogCommand)
	}
	return hints
}

// PlatformError means that neither this machine nor a remote builder builds for a system.
type PlatformError struct {
	System string // "aarch64-linux"
	Reason string // what was found instead
	err    error
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("nothing here builds for %s: %s", e.System, e.Reason)
}

// Unwrap gives the error it was recognised by, if any.
func (e *PlatformError) Unwrap() error { return e.err }

var (
	quotedDerivation = regexp.MustCompile(`'(/nix/store/[^'/]*\.drv)'`)
	consequence      = regexp.MustCompile(`dependencies of derivation '|Reason: \d+ dependenc|^build of .* failed$|due to failed dependency|^some dependencies of `)
	oldMismatch      = regexp.MustCompile(`^a '([^']*)' with features \{([^}]*)\} is required to build '[^']*', but I am a '([^']*)'`)
	newMismatch      = regexp.MustCompile(`Required system: '([^']*)'[^\n]*\nCurrent system: '([^']*)'`)
	newReason        = regexp.MustCompile(`(?s)^Cannot build '[^']*'\.\n *Reason: (.*)$`)
	reasonEnd        = regexp.MustCompile(`(?m);?\n *(?:Output paths:|[Ll]ast \d+ log lines:|For full logs, run)`)
	quotedLogLine    = regexp.MustCompile(`(?m)^ *> (.*)$`)
	diskFull         = regexp.MustCompile(`(?i)lack of free disk space|no space left on device|disk is full`)
)

// isConsequence tells whether a message only says that something else has failed.
func isConsequence(message string) bool { return consequence.MatchString(message) }

// readFailures finds in Nix's error messages what has failed, in their order.
func readFailures(messages []string) *BuildError {
	b := &BuildError{Messages: messages}
	seen := map[StorePath]bool{}
	for _, message := range messages {
		b.DiskFull = b.DiskFull || diskFull.MatchString(message)
		m := quotedDerivation.FindStringSubmatch(message)
		if m == nil || isConsequence(message) {
			continue
		}
		drv, err := ParseStorePath(m[1])
		if err != nil || seen[drv] {
			continue
		}
		seen[drv] = true
		b.Derivations = append(b.Derivations, readFailure(drv, message))
	}
	return b
}

func readFailure(drv StorePath, message string) FailedDerivation {
	f := FailedDerivation{Drv: drv}
	for _, l := range quotedLogLine.FindAllStringSubmatch(message, -1) {
		f.LastLines = append(f.LastLines, run.Clean(l[1]))
	}
	if len(f.LastLines) > keptLines {
		f.LastLines = f.LastLines[len(f.LastLines)-keptLines:]
	}
	if m := oldMismatch.FindStringSubmatch(message); m != nil {
		if m[1] != m[3] {
			f.platform = &mismatch{m[1]}
			f.Reason = fmt.Sprintf("this machine is %s", m[3])
			return f
		}
		f.Reason = fmt.Sprintf("needs the system features {%s}", m[2])
		return f
	}
	if m := newMismatch.FindStringSubmatch(message); m != nil && m[1] != m[2] {
		f.platform = &mismatch{m[1]}
		f.Reason = fmt.Sprintf("this machine is %s", m[2])
		return f
	}
	if at := reasonEnd.FindStringIndex(message); at != nil {
		message = message[:at[0]]
	}
	quoted := "'" + string(drv) + "'"
	if m := newReason.FindStringSubmatch(message); m != nil {
		f.Reason = strings.TrimPrefix(strings.TrimSuffix(m[1], "."), "builder ")
	} else if rest, found := strings.CutPrefix(message, "builder for "+quoted+" "); found {
		f.Reason = rest
	} else {
		f.Reason = strings.Join(strings.Fields(strings.Replace(message, quoted, "", 1)), " ")
		if strings.Contains(message, "\n") {
			f.Reason = strings.Replace(message, " "+quoted, "", 1)
		}
	}
	f.ran = strings.Contains(f.Reason, "failed")
	return f
}
