package ui

import (
	"fmt"
	"strings"
	"time"

	"ferry/internal/nix"
	"ferry/internal/prose"
	"ferry/internal/session"
	"ferry/internal/ship"
)

// doing says what goes on in a step.
func doing(s session.Step) string {
	switch s {
	case session.Connect:
		return "connecting"
	case session.Evaluate:
		return "evaluating"
	case session.Build:
		return "building"
	case session.Ship:
		return "shipping"
	case session.Activate:
		return "activating"
	case session.Check:
		return "checking"
	case session.Reboot:
		return "rebooting"
	case session.Commit:
		return "committing"
	case session.Confirm:
		return "confirming"
	}
	return string(s)
}

// finished is the line that remains of a step.
func finished(node string, step session.Step, text string, took time.Duration) string {
	line := fmt.Sprintf("%s: %-8s", node, step)
	if text != "" {
		line += "  " + text
	}
	return strings.TrimRight(line, " ") + "  (" + duration(took) + ")"
}

// duration is a time as people read it.
func duration(d time.Duration) string {
	if d < 9950*time.Millisecond {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

func building(b nix.BuildProgress) string {
	text := fmt.Sprintf("building %d of %d", b.Done, b.Expected)
	if b.FetchBytes > 0 {
		text += fmt.Sprintf(", fetched %s of %s", prose.Size(uint64(b.FetchedBytes)), prose.Size(uint64(b.FetchBytes)))
	}
	if len(b.Running) > 0 {
		text += ": " + strings.Join(b.Running, ", ")
	}
	return text
}

// shipping says how many bytes went over the wire, how fast, and how long the rest will take.
func (r *rate) shipping(now time.Time, s ship.Progress) string {
	text := fmt.Sprintf("shipping %s of %s, %d of %d paths", prose.Size(s.Bytes), prose.Size(s.TotalBytes), s.Paths, s.TotalPaths)
	r.add(now, s)
	if perSecond, left, ok := r.estimate(s); ok {
		text += fmt.Sprintf(", %s sent at %s/s, %s left", prose.Size(s.Wire), prose.Size(perSecond), duration(left))
	}
	return text
}

// rate estimates a ship's speed over its last seconds.
type rate struct{ samples []sample }

type sample struct {
	at          time.Time
	bytes, wire uint64
}

// rateWindow is what the estimate looks back at: long enough to be steady, short enough to notice a change.
const rateWindow = 10 * time.Second

// longestEstimate is the longest rest that is worth telling; what is longer is a line that stalls.
const longestEstimate = 100 * time.Hour

func (r *rate) add(now time.Time, s ship.Progress) {
	if n := len(r.samples); n > 0 && (s.Bytes < r.samples[n-1].bytes || s.Wire < r.samples[n-1].wire) {
		// A ship that was broken off begins with what is left.
		r.samples = nil
	}
	r.samples = append(r.samples, sample{now, s.Bytes, s.Wire})
	for len(r.samples) > 2 && now.Sub(r.samples[0].at) > rateWindow {
		r.samples = r.samples[1:]
	}
}

// estimate gives bytes on the wire per second and the time that the rest takes; not ok while too little is known.
func (r *rate) estimate(s ship.Progress) (perSecond uint64, left time.Duration, ok bool) {
	if len(r.samples) < 2 {
		return 0, 0, false
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds < 0.5 || last.bytes <= first.bytes {
		return 0, 0, false
	}
	perSecond = uint64(float64(last.wire-first.wire) / seconds)
	rest := float64(s.TotalBytes-min(s.Bytes, s.TotalBytes)) * seconds / float64(last.bytes-first.bytes)
	if rest > longestEstimate.Seconds() {
		return 0, 0, false
	}
	return perSecond, time.Duration(rest * float64(time.Second)), true
}
