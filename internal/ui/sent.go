package ui

import (
	"fmt"

	"ferry/internal/prose"
	"ferry/internal/ship"
)

// sent says how a path was shipped, and what that saved.
func sent(s ship.Sent) string {
	if len(s.Bases) == 0 {
		return fmt.Sprintf("%s: %s as a whole", s.Path.Base(), prose.Size(s.Bytes))
	}
	from := s.Bases[0].Base()
	if more := len(s.Bases) - 1; more > 0 {
		from += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s: %s of %s, the rest from %s", s.Path.Base(), prose.Size(s.Added), prose.Size(s.Bytes), from)
}
