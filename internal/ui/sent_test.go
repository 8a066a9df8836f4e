package ui

import (
	"testing"

	"ferry/internal/nix"
	"ferry/internal/ship"
)

func TestSentSaysWhatItSaved(t *testing.T) {
	const next, old = "/nix/store/00000000000000000000000000000000-lib-2", "/nix/store/11111111111111111111111111111111-lib-1"
	for want, s := range map[string]ship.Sent{
		"00000000000000000000000000000000-lib-2: 2.0 MB as a whole": {Path: next, Bytes: 2_000_000, Added: 2_000_000},
		"00000000000000000000000000000000-lib-2: 1.5 kB of 2.0 MB, the rest from 11111111111111111111111111111111-lib-1": {
			Path: next, Bytes: 2_000_000, Added: 1500, Bases: []nix.StorePath{old}},
		"00000000000000000000000000000000-lib-2: 0 B of 2.0 MB, the rest from 11111111111111111111111111111111-lib-1 and 1 more": {
			Path: next, Bytes: 2_000_000, Bases: []nix.StorePath{old, next}},
	} {
		if got := sent(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
