package nix

import (
	"encoding/json"
	"slices"
	"strings"

	"ferry/internal/run"
)

// BuildProgress is where a build is.
type BuildProgress struct {
	Done, Expected int      // derivations; Expected may grow
	Failed         int      // derivations, those that could not start because of others included
	Running        []string // names of the derivations being built, oldest first
	FetchedBytes   uint64   // got from substituters, unpacked
	FetchBytes     uint64   // to be got in all, unpacked, as far as known
	Plan           Plan     // what Nix has announced to do

	// The rest is set when there is something new to show, and empty the next time.
	Line    string // a line that a builder wrote, cleaned by [run.Clean]
	Builder string // the name of the derivation that wrote Line
	Message string // a line for people: a warning of Nix, or what is not from Nix itself, as a remote builder's ssh
}

// Of Nix's activities and their results, those that matter here. Unknown ones are ignored.
const (
	activityCopy   = 100
	activityBuilds = 104
	activityBuild  = 105

	resultLogLine     = 101
	resultProgress    = 105
	resultExpected    = 106
	resultHookLogLine = 107
)

// Levels of Nix's messages.
const (
	levelError   = 0
	levelWarning = 1
	levelInfo    = 3
)

// keptLines is how many of its last lines are kept of every build that runs.
const keptLines = 20

// buildEvent is one line of --log-format internal-json.
type buildEvent struct {
	Action string            `json:"action"`
	ID     uint64            `json:"id"`
	Type   int               `json:"type"`
	Level  int               `json:"level"`
	Msg    string            `json:"msg"`
	Fields []json.RawMessage `json:"fields"`
}

// text is the field i if it is a string, else "".
func (e buildEvent) text(i int) (s string) {
	if i < len(e.Fields) {
		_ = json.Unmarshal(e.Fields[i], &s)
	}
	return s
}

// number is the field i if it is a number that is not negative, else 0.
func (e buildEvent) number(i int) (n uint64) {
	if i < len(e.Fields) {
		_ = json.Unmarshal(e.Fields[i], &n)
	}
	return n
}

// count is a number of derivations.
func (e buildEvent) count(i int) int { return int(min(e.number(i), 1<<30)) }

// buildLog reads the messages of a build.
type buildLog struct {
	progress func(BuildProgress)
	state    BuildProgress
	builds   []runningBuild
	copies   map[uint64]uint64 // bytes so far of the copies that run
	copied   uint64            // bytes of those that have ended
	expected map[uint64]uint64 // bytes to copy, by the activity that says so
	summary  uint64            // the activity that counts derivations
	counted  int               // derivations expected, as that activity counts
	plan     planReader        // what Nix announces to do
	lines    map[StorePath][]string
	errors   []string    // messages, each with its lines cleaned
	ended    []StorePath // builds that have run, well or not
	speaker  StorePath   // the derivation that wrote state.Line
}

// runningBuild is an activity that builds.
type runningBuild struct {
	id  uint64
	drv StorePath
}

func newBuildLog(progress func(BuildProgress)) *buildLog {
	return &buildLog{
		progress: progress,
		copies:   map[uint64]uint64{},
		expected: map[uint64]uint64{},
		lines:    map[StorePath][]string{},
	}
}

// line takes one line of standard error.
func (b *buildLog) line(line string) {
	text, isEvent := strings.CutPrefix(line, "@nix ")
	if !isEvent {
		if startsError(line) {
			b.message(buildEvent{Msg: line})
		} else if strings.TrimSpace(line) != "" {
			b.state.Message = run.Clean(line)
			b.tell()
		}
		return
	}
	var e buildEvent
	if json.Unmarshal([]byte(text), &e) != nil {
		return
	}
	switch e.Action {
	case "start":
		b.start(e)
	case "stop":
		b.stop(e)
	case "result":
		b.result(e)
	case "msg":
		b.message(e)
	}
}

func (b *buildLog) start(e buildEvent) {
	switch e.Type {
	case activityBuilds:
		b.summary = e.ID
	case activityCopy:
		b.copies[e.ID] = 0
	case activityBuild:
		drv, err := ParseStorePath(e.text(0))
		if err != nil {
			return
		}
		b.builds = append(b.builds, runningBuild{e.ID, drv})
		b.tell()
	}
}

func (b *buildLog) stop(e buildEvent) {
	if n, found := b.copies[e.ID]; found {
		b.copied += n
		delete(b.copies, e.ID)
	}
	delete(b.expected, e.ID)
	running := len(b.builds)
	b.builds = slices.DeleteFunc(b.builds, func(r runningBuild) bool {
		if r.id == e.ID {
			b.ended = append(b.ended, r.drv)
		}
		return r.id == e.ID
	})
	if len(b.builds) < running {
		b.tell()
	}
}

func (b *buildLog) result(e buildEvent) {
	switch e.Type {
	case resultLogLine, resultHookLogLine:
		b.state.Line = run.Clean(strings.TrimRight(e.text(0), "\r\n"))
		for _, r := range b.builds {
			if r.id == e.ID {
				b.state.Builder, b.speaker = derivationName(r.drv), r.drv
				b.keep(r.drv, b.state.Line)
				break
			}
		}
		b.tell()
	case resultProgress:
		if e.ID == b.summary && b.summary != 0 {
			b.state.Done, b.counted, b.state.Failed = e.count(0), e.count(1), e.count(3)
			b.tell()
		} else if _, found := b.copies[e.ID]; found {
			b.copies[e.ID] = e.number(0)
			b.tell()
		}
	case resultExpected:
		if e.number(0) == activityCopy {
			b.expected[e.ID] = e.number(1)
		}
	}
}

func (b *buildLog) message(e buildEvent) {
	if e.Level == levelInfo {
		b.plan.line(e.Msg)
	}
	if e.Level > levelWarning {
		return
	}
	lines := strings.Split(e.Msg, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(run.Clean(l), errorIndent)
	}
	// Not every message of the level of errors is one: a daemon sends all of its messages at that level.
	if m := errorLine.FindStringSubmatch(lines[0]); m != nil && e.Level == levelError {
		lines[0] = m[2]
		b.errors = append(b.errors, strings.TrimSpace(strings.Join(lines, "\n")))
		return
	}
	for _, l := range lines {
		if l != "" {
			b.state.Message = l
			b.tell()
		}
	}
}

func (b *buildLog) keep(drv StorePath, line string) {
	kept := append(b.lines[drv], line)
	if len(kept) > keptLines {
		kept = kept[len(kept)-keptLines:]
	}
	b.lines[drv] = kept
}

// tell calls progress with a state that is its own.
func (b *buildLog) tell() {
	if b.progress != nil {
		state := b.state
		state.Plan = b.plan.Plan
		// Newer versions count one too many now and then, so what was announced goes first.
		state.Expected = len(b.plan.Build)
		if state.Expected == 0 {
			state.Expected = b.counted
		}
		state.Expected = max(state.Expected, state.Done+state.Failed+len(b.builds))
		state.Running = make([]string, len(b.builds))
		for i, r := range b.builds {
			state.Running[i] = derivationName(r.drv)
		}
		state.FetchedBytes = b.copied
		for _, n := range b.copies {
			state.FetchedBytes += n
		}
		for _, n := range b.expected {
			state.FetchBytes += n
		}
		state.FetchBytes = max(state.FetchBytes, state.FetchedBytes)
		b.progress(state)
	}
	b.state.Line, b.state.Builder, b.state.Message, b.speaker = "", "", "", ""
}

func derivationName(drv StorePath) string { return strings.TrimSuffix(drv.Name(), ".drv") }
