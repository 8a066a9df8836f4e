package machine

import (
	"bytes"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// Process is one of the agent's ancestors.
type Process struct {
	PID, Parent, UID int
	Name             string
}

// Process reads /proc/PID/status.
func (r Root) Process(pid int) (Process, bool) {
	p := Process{PID: pid, UID: -1}
	text, err := r.small("/proc/" + strconv.Itoa(pid) + "/status")
	if pid <= 0 || err != nil {
		return p, false
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch key {
		case "Name":
			p.Name = f[0]
		case "PPid":
			p.Parent, _ = strconv.Atoi(f[0])
		case "Uid":
			p.UID, _ = strconv.Atoi(f[0])
		}
	}
	return p, true
}

// Environ reads what a process was started with.
func (r Root) Environ(pid int) map[string]string {
	text, err := r.small("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil
	}
	vars := map[string]string{}
	for entry := range bytes.SplitSeq(text, []byte{0}) {
		if name, value, ok := strings.Cut(string(entry), "="); ok {
			vars[name] = value
		}
	}
	return vars
}

// UnitOf is the systemd unit that a process belongs to, by its control group.
func (r Root) UnitOf(pid int) string {
	text, err := r.small("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (f[1] == "" || f[1] == "name=systemd") && strings.HasSuffix(f[2], ".service") {
			return path.Base(f[2])
		}
	}
	return ""
}

// small reads the beginning of a file of /proc.
func (r Root) small(p string) ([]byte, error) {
	file, err := os.Open(r.Path(p))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, 256<<10))
}

// ProcessID names a process that has not ended, or another one that has its number.
type ProcessID struct {
	Pid   int   `json:"pid"`
	Start int64 `json:"start"` // in ticks since the machine has begun
}

// IsGone tells whether a process that was there has ended.
func IsGone(p ProcessID) bool {
	return p.Pid > 0 && p.Start > 0 && Root{}.StartTicks(p.Pid) != p.Start
}

// ProcessState is the letter for what a process does, such as T for one that is stopped; "" if it is gone.
func (r Root) ProcessState(pid int) string {
	if fields := r.statFields(pid); len(fields) > 0 {
		return fields[0]
	}
	return ""
}

// StartTicks is when a process began, in ticks since the machine has; 0: it is gone.
func (r Root) StartTicks(pid int) int64 {
	const start = 19
	fields := r.statFields(pid)
	if len(fields) <= start {
		return 0
	}
	ticks, _ := strconv.ParseInt(fields[start], 10, 64)
	return ticks
}

// userHZ is the unit of times in /proc for programs, on every machine.
const userHZ = 100

// StartTime is when a process began, in seconds since 1970; 0: not known.
func (r Root) StartTime(pid int, now time.Time) int64 {
	ticks := r.StartTicks(pid)
	up, _, _ := strings.Cut(r.Line("/proc/uptime"), " ")
	seconds, upErr := strconv.ParseFloat(up, 64)
	if ticks == 0 || upErr != nil {
		return 0
	}
	return now.Unix() - int64(seconds) + ticks/userHZ
}

// statFields are the fields of a process's stat that follow its name, see proc(5).
func (r Root) statFields(pid int) []string {
	text, err := os.ReadFile(r.Path("/proc/" + strconv.Itoa(pid) + "/stat"))
	if err != nil {
		return nil
	}
	// The second field is a name in parentheses that may have anything in it.
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}
