package ship

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"
	"testing"

	"ferry/internal/nix"
)

// crowd is a path that several nodes need at once, and what they have of it.
type crowd struct {
	t         *testing.T
	old, next nix.StorePath
	nar       []byte
	memory    *Memory
}

// newCrowd has a path of several pieces.
func newCrowd(t *testing.T) *crowd {
	t.Helper()
	useRealNix(t)
	text := mixed(11, 9<<20)
	c := &crowd{t: t, old: add(t, "crowd-1.0", text), next: add(t, "crowd-1.1", "new"+text[:4<<20]+"new"+text[4<<20:]), memory: &Memory{}}
	var nar bytes.Buffer
	if err := nix.DumpPath(t.Context(), &nar, string(c.next)); err != nil {
		t.Fatal(err)
	}
	c.nar = nar.Bytes()
	return c
}

func (c *crowd) plan(known ...nix.StorePath) *Plan {
	c.t.Helper()
	plan := makePlan(c.t, localStore(c.t, c.next), fakeTarget{lacks: []nix.StorePath{c.next}}, c.next)
	plan.Known, plan.Memory = infosOf(c.t, known...), c.memory
	return plan
}

// nothingShared checks that what has been made for several is nobody's any more.
func (c *crowd) nothingShared() {
	c.t.Helper()
	if n := len(c.memory.sharing); n > 0 || c.memory.sharedSize != 0 {
		c.t.Errorf("%d paths are shared, %d bytes", n, c.memory.sharedSize)
	}
}

// TestADifferenceIsMadeOnce for nodes that need it at once: what they get of each piece is the same memory.
func TestADifferenceIsMadeOnce(t *testing.T) {
	c := newCrowd(t)
	const nodes = 3
	var parcels [nodes]*parcel
	var together sync.WaitGroup
	var encodings [nodes]*encoding
	for i := range nodes {
		encodings[i] = c.plan(c.old).encode(t.Context())
	}
	for i, e := range encodings {
		together.Go(func() {
			parcels[i] = <-e.parcels
			for _, piece := range parcels[i].pieces {
				<-piece.done
				<-e.room
			}
		})
	}
	together.Wait()
	// Whoever leaves first leaves it to the others.
	for i, e := range encodings {
		parcels[i].leave()
		e.stop()
	}
	first := parcels[0].pieces
	for i, parcel := range parcels {
		if len(parcel.pieces) < 2 || len(parcel.pieces) != len(first) {
			t.Fatalf("%d pieces and %d", len(first), len(parcel.pieces))
		}
		for k, piece := range parcel.pieces {
			if piece.err != nil || len(piece.out) == 0 || &piece.out[0] != &first[k].out[0] {
				t.Errorf("piece %d of node %d was made again, or not: %v", k, i, piece.err)
			}
		}
	}
	c.nothingShared()
}

// TestEachOfSeveralGetsItsOwnStream, also where one gives up in the middle, has other bases, or sends only the end.
func TestEachOfSeveralGetsItsOwnStream(t *testing.T) {
	c := newCrowd(t)
	other := add(t, "crowd-0.9", string(c.nar[100_000:8_000_000]))
	var together sync.WaitGroup
	has := [][]nix.StorePath{{c.old}, {c.old}, {other}, {other, c.old}, {c.old}}
	var plans []*Plan
	for _, known := range has {
		plans = append(plans, c.plan(known...))
	}
	end := plans[len(plans)-1]
	end.goOn(Options{Parked: parkedOf(end.Missing[0], 6_000_000)})
	gaveUp, giveUp := context.WithCancel(t.Context())
	failing := c.plan(c.old)
	together.Go(func() {
		_ = (&sender{plan: failing}).write(gaveUp, writerFunc(func([]byte) (int, error) {
			giveUp()
			return 0, io.ErrClosedPipe
		}))
	})
	outs, errs := make([]bytes.Buffer, len(plans)), make([]error, len(plans))
	for i, plan := range plans {
		together.Go(func() { errs[i] = (&sender{plan: plan}).write(t.Context(), &outs[i]) })
	}
	together.Wait()
	for i := range plans {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		header, got := onlyPath(t, &outs[i])
		if !bytes.Equal(got, c.nar[header.Start:]) {
			t.Errorf("another NAR comes out of %q", header.Bases)
		}
		for _, base := range header.Bases {
			if !slices.Contains(has[i], base) {
				t.Errorf("it is made from %s, which the node has not got", base)
			}
		}
	}
	c.nothingShared()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
