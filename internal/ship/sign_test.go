package ship

import (
	"strings"
	"testing"

	"ferry/internal/nix"
)

// mixed is text of n bytes that cannot be compressed much.
func mixed(seed uint32, n int) string {
	var b strings.Builder
	for state := seed; b.Len() < n; {
		state = state*1664525 + 1013904223
		b.WriteByte(byte(state >> 24))
	}
	return b.String()
}

// TestSignFindsWhatOnlyTheTargetHas ships what is like something that this machine does not know the target has: the target's
// signatures stand in for it.
func TestSignFindsWhatOnlyTheTargetHas(t *testing.T) {
	useRealNix(t)
	t.Setenv("FAKE_LOCK", "yes")
	text := mixed(1, 4<<20)
	old := add(t, "tool-3.0", text)
	next := add(t, "tool-3.1", text[:1_000_000]+"something else"+text[1_000_000:])
	other := add(t, "other-1.0", mixed(2, 100_000))
	session := connect(t)
	if _, err := makePlan(t, localStore(t, old), session, old).Send(t.Context(), session, func(Progress) {}, nil); err != nil {
		t.Fatal(err)
	}
	plan := makePlan(t, localStore(t, next, other), session, next)
	if err := plan.Sign(t.Context(), session, []nix.StorePath{old}); err != nil {
		t.Fatal(err)
	}
	result, err := plan.Send(t.Context(), session, func(Progress) {}, nil)
	if err != nil || result.Paths != 2 || result.Differences != 1 || result.Wire > 120_000 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestSignAsksNothingWhereItIsNotWorthIt(t *testing.T) {
	large, small := infoOf("tool-1.1"), infoOf("tool-1.1")
	large.NarSize, small.NarSize = 10<<20, 1<<20
	for name, plan := range map[string]*Plan{
		"little is missing": {Missing: []nix.PathInfo{small}, Bytes: small.NarSize},
		"the base is here":  {Missing: []nix.PathInfo{large}, Bytes: large.NarSize, Known: []nix.PathInfo{infoOf("tool-1.0")}},
	} {
		// A target that would have to answer is not there.
		if err := plan.Sign(t.Context(), nil, []nix.StorePath{pathOf("system")}); err != nil || plan.Signed != nil {
			t.Errorf("%s: %v, %v", name, plan.Signed, err)
		}
	}
}
