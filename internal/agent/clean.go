package agent

import (
	"ferry/internal/nix"
	"ferry/internal/run"
)

// What a target says may be anything, and is shown to people: it is cleaned once, where it arrives.

func (h *Hello) clean() {
	f := &h.Facts
	cleanText(&h.Version, &f.Host, &f.Machine, &f.System, &f.Nix, &f.NixError, &f.BootID, &f.BootOnce)
	// These become a part of commands that a person is told to run.
	cleanPath(&f.Current, &f.Booted, &f.Profile, &f.Bundle, &f.Committed)
	cleanPath(&f.Pending)
	cleanShort(&f.Version, &f.Specialisation)
	f.Deployed.Clean()
	cleanKept(&h.Kept)
	for _, e := range []*JournalEntry{f.Last, f.LastCommit} {
		if e != nil {
			e.Clean()
		}
	}
	if f.Previous != nil {
		f.Previous.clean()
	}
	if f.Lock != nil {
		cleanText(&f.Lock.Who, &f.Lock.From)
		cleanPath(&f.Lock.Bundle)
	}
}

func (r *ActivateResult) clean() {
	cleanText(&r.Error, &r.Log)
	cleanPath(&r.Current)
	for i := range r.Failed {
		cleanText(&r.Failed[i])
	}
}

func (r *CommitResult) clean() { cleanText(&r.Error, &r.Log) }

func (e *ResponseError) clean() {
	cleanText(&e.Text, &e.Command)
	for i := range e.Stderr {
		cleanText(&e.Stderr[i])
	}
	cleanKept(&e.Kept)
}

// cleanKept forgets what is no store path.
func cleanKept(kept **Kept) {
	if *kept == nil {
		return
	}
	if _, err := nix.ParseStorePath(string((*kept).Path)); err != nil {
		*kept = nil
	}
}

func cleanText(texts ...*string) {
	for _, t := range texts {
		*t = run.Clean(*t)
	}
}

// cleanPath empties what is no store path.
func cleanPath(paths ...*string) {
	for _, p := range paths {
		if _, err := nix.ParseStorePath(*p); err != nil {
			*p = ""
		}
	}
}
