package inventory

import "ferry/internal/prose"

// didYouMean is the hint for an unknown name, or none if nothing is near.
func didYouMean(name string, known []string) []string {
	if n := prose.Nearest(name, known); n != "" {
		return []string{"did you mean `" + n + "`?"}
	}
	return nil
}
