package nix

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"ferry/internal/run"
)

// EvalError is an expression that could not be evaluated.
type EvalError struct {
	// Trace is everything Nix wrote about it, in the order of its version: up to 2.13 the error first and its cause
	// nearest to it, later the other way round. Of a trace of more than 2 MiB the middle is missing.
	Trace string
	err   error
}

// Error is the message without the trace.
func (e *EvalError) Error() string { return "evaluate: " + e.Summary() }

// Unwrap gives the command's error.
func (e *EvalError) Unwrap() error { return e.err }

// Summary is the message of the error, without the trace, its lines cleaned by [run.Clean]. It may have several lines.
func (e *EvalError) Summary() string { return parseTrace(e.Trace).summary() }

// UserTrace is the part of the trace that lies in files below source, nearest to the error first, ready to be printed.
// Paths below source are written as paths below root, the folder that source is a snapshot of.
func (e *EvalError) UserTrace(source StorePath, root string) []string {
	var lines []string
	seen := map[string]bool{}
	for _, f := range parseTrace(e.Trace).frames {
		inUserFile := f.at != "" && strings.HasPrefix(f.at, string(source)+"/")
		// The module system names files in words: "while evaluating definitions from `…'".
		namesUserFile := f.at == "" && strings.Contains(f.hint, string(source)+"/")
		if !inUserFile && !namesUserFile || seen[f.at+f.hint] {
			continue
		}
		seen[f.at+f.hint] = true
		if f.hint != "" {
			lines = append(lines, UserPaths(f.hint, source, root))
		}
		if f.at != "" {
			lines = append(lines, "at "+UserPaths(f.at, source, root)+":")
			lines = append(lines, f.code...)
		}
	}
	return lines
}

// maxOptions is how many options [EvalError.OptionTrace] tells.
const maxOptions = 5

// OptionTrace are the lines of the trace that say which options were being evaluated, nearest to the error first, each once.
func (e *EvalError) OptionTrace() []string {
	var lines []string
	for _, f := range parseTrace(e.Trace).frames {
		if strings.Contains(f.hint, "while evaluating the option ") && !slices.Contains(lines, f.hint) && len(lines) < maxOptions {
			lines = append(lines, f.hint)
		}
	}
	return lines
}

// UserPaths replaces source by root in text, wherever it starts a path: a message then names the files that the user has.
func UserPaths(text string, source StorePath, root string) string {
	return strings.ReplaceAll(text, string(source)+"/", strings.TrimSuffix(root, "/")+"/")
}

// frame is one step of a trace.
type frame struct {
	hint string   // "… while evaluating …", or empty
	at   string   // "FILE:LINE:COLUMN", or empty
	code []string // the lines of the file around it
}

// errorIndent is what Nix puts before the lines of an error other than the first, as wide as "error: ".
const errorIndent = "       "

// trace is a taken apart message.
type trace struct {
	errors [][]string // the messages, each of at least one line
	frames []frame    // nearest to the last message first
}

var (
	errorLine    = regexp.MustCompile(`^( *)error(?: \[[^\]]*\])?:(?: (.*))?$`)
	positionLine = regexp.MustCompile(`^ +at (\S.*:\d+(?::\d+)?):?$`)
	codeLine     = regexp.MustCompile(`^ +\d*\|`)
	adviceLine   = regexp.MustCompile(`^ *\((?:use '--show-trace'|stack trace truncated|\d+ duplicate frames)`)
)

// startsError tells whether line is the first of an error. The lines of an error that start a message are indented.
func startsError(line string) bool {
	m := errorLine.FindStringSubmatch(run.Clean(line))
	return m != nil && m[1] == ""
}

// parseTrace reads what Nix writes about a failed evaluation. Nix has changed the order and the indentation, but not the
// elements: messages that start with "error:", steps that start with "…", positions "at FILE:LINE:COLUMN:" and code.
func parseTrace(s string) trace {
	var t trace
	var frames []frame
	before := 0 // how many of frames stand before the last message
	inMessage := false
	for _, line := range strings.Split(s, "\n") {
		line = strings.TrimRight(run.Clean(line), " ")
		trimmed := strings.TrimLeft(line, " ")
		if m := errorLine.FindStringSubmatch(line); m != nil {
			// With nothing behind it, it is the heading of a trace that ends with the error, or of a message that
			// starts with an empty line, as that of NixOS's failed assertions: what follows tells.
			inMessage = true
			t.errors = append(t.errors, []string{m[2]})
			before = len(frames)
			continue
		}
		switch {
		case strings.HasPrefix(trimmed, "… "):
			inMessage = false
			frames = append(frames, frame{hint: trimmed})
		case positionLine.MatchString(line):
			inMessage = false
			at := positionLine.FindStringSubmatch(line)[1]
			if n := len(frames); n > before && frames[n-1].at == "" {
				frames[n-1].at = at
			} else {
				frames = append(frames, frame{at: at})
			}
		case codeLine.MatchString(line) && len(frames) > 0 && !inMessage:
			last := &frames[len(frames)-1]
			last.code = append(last.code, strings.TrimPrefix(line, errorIndent))
		case adviceLine.MatchString(line):
			inMessage = false
		case strings.HasPrefix(trimmed, "Did you mean ") && len(t.errors) > 0:
			last := len(t.errors) - 1
			message := strings.TrimRight(strings.Join(t.errors[last], "\n"), "\n")
			t.errors[last] = []string{message, trimmed}
		case inMessage:
			last := len(t.errors) - 1
			t.errors[last] = append(t.errors[last], strings.TrimPrefix(line, errorIndent))
		}
	}
	t.errors = slices.DeleteFunc(t.errors, func(message []string) bool {
		return strings.TrimSpace(strings.Join(message, "")) == ""
	})
	earlier := slices.Clone(frames[:before])
	slices.Reverse(earlier)
	t.frames = append(slices.Clone(frames[before:]), earlier...)
	return t
}

func (t trace) summary() string {
	for i := len(t.errors) - 1; i >= 0; i-- {
		message := strings.Trim(strings.Join(t.errors[i], "\n"), "\n ")
		// When something that evaluation needs could not be built, the message before says why.
		if i > 0 && isConsequence(message) {
			continue
		}
		return message
	}
	return "nix-instantiate failed without a message"
}

// impurities are the messages by which pure evaluation refuses something. The first group names it.
var impurities = []*regexp.Regexp{
	regexp.MustCompile(`access to absolute path '([^']*)' is forbidden in pure eval(?:uation)? mode`),
	regexp.MustCompile(`the path '(~[^']*)' can not be resolved in pure mode`),
	regexp.MustCompile(`cannot look up '(<[^']*>)' in pure eval(?:uation)? mode`),
	regexp.MustCompile(`^attribute '((?:current(?:System|Time)))' missing`),
	regexp.MustCompile(`^undefined variable '(?:__)?(current(?:System|Time))'`),
	regexp.MustCompile(`in pure evaluation mode, '([^']*)' requires a `),
	regexp.MustCompile(`in pure evaluation mode, '[^']*' (?:will not|doesn't) fetch unlocked input '([^']*)'`),
	regexp.MustCompile(`'([^']*)' is not allowed in pure eval(?:uation)? mode`),
	regexp.MustCompile(`cannot call '(getFlake)' on unlocked flake reference`),
	regexp.MustCompile(`cannot update unlocked flake input '([^']*)' in pure mode`),
}

// IsPurity tells whether err is an evaluation that failed only because it was pure, and what it wanted: a path, a name
// in angle brackets, the name of a builtin that needs a hash or a revision, or the address it was to fetch.
func IsPurity(err error) (what string, ok bool) {
	var e *EvalError
	if !errors.As(err, &e) {
		return "", false
	}
	summary := e.Summary()
	for _, r := range impurities {
		if m := r.FindStringSubmatch(summary); m != nil {
			what = m[1]
			if strings.HasPrefix(what, "current") || strings.HasPrefix(what, "fetch") || what == "getFlake" {
				what = "builtins." + what
			}
			return what, true
		}
	}
	return "", false
}
