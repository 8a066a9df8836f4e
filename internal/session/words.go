package session

import (
	"fmt"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// ByWhom says who deployed and when, as far as that is known.
func ByWhom(e *agent.JournalEntry) string {
	if e == nil {
		return ""
	}
	text := ""
	if e.Who != "" {
		text = " by " + e.Who
	}
	return text + " on " + day(e.Time)
}

func day(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// SystemName is a toplevel's name; two systems may have the same, and then differ in the beginning of the hash.
func SystemName(toplevel string) string {
	p, err := nix.ParseStorePath(toplevel)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s (%s…)", p.Name(), p.Hash()[:7])
}

// shortRevision is a git revision as people write it.
func shortRevision(revision string) string { return revision[:min(len(revision), 12)] }

// UsersUnits says what failed of users who have no say in it.
func UsersUnits(units []string) string {
	return "units of other users failed, which changes nothing: " + strings.Join(units, ", ")
}
