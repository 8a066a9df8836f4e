package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/prose"
	"ferry/internal/session"
	"ferry/internal/ship"
)

// shipment brings a bundle to a target, in as many rounds as it takes: each sends what is still missing.
type shipment struct {
	d     *deployment
	root  nix.StorePath
	total ship.Result
	// whole are the paths that the target could not rebuild from what it has.
	whole map[nix.StorePath]bool
	// oneChannel says that another channel of the connection has failed once.
	oneChannel bool
	// askAll says that the target has not got what it should have.
	askAll bool
}

// maxWrongBases is how many paths are sent again as a whole before no differences are sent any more: a disk that is broken in
// many places would cost a round for each.
const maxWrongBases = 4

// run is the ship with one connection.
func (s *shipment) run(ctx context.Context) func(*agent.Session) error {
	return func(conn *agent.Session) error {
		local, err := s.d.Nix.OpenServe(ctx)
		if err != nil {
			return err
		}
		defer local.Close()
		for {
			err := s.round(ctx, local.Serve, conn)
			var wrong *ship.WrongBaseError
			var response *agent.ResponseError
			switch {
			case errors.As(err, &wrong) && !s.whole[wrong.Path]:
				s.whole[wrong.Path] = true
				s.d.Note(wrong.Error() + "; it is sent as a whole. If it happens again, look at that machine's disk, and run there: sudo nix-store --verify --check-contents")
			case !s.oneChannel && errors.As(err, &response) && response.Kind == agent.KindChannel:
				s.d.Note(err.Error() + "; the ship goes on over one channel")
				s.oneChannel = true
				continue
			case !s.askAll && errors.As(err, &response) && strings.Contains(strings.Join(response.Stderr, "\n"), "is not valid"):
				// Collected since, or its database says something else than its links.
			default:
				return err
			}
			s.askAll = true
		}
	}
}

func (s *shipment) round(ctx context.Context, local *nix.Serve, conn *agent.Session) error {
	facts := conn.Hello.Facts
	plan, err := ship.MakePlan(ctx, local, conn, s.root, ship.Options{
		Substitute: s.d.opts.SubstituteOnTarget, Known: session.KeptBy(facts), AskAll: s.askAll,
		NoDelta: s.noDelta(), Whole: s.whole, Memory: s.d.opts.Memory, Parked: conn.Hello.Parked, OneChannel: s.oneChannel,
	})
	if err != nil {
		return err
	}
	if len(plan.Missing) == 0 {
		return nil
	}
	if err := session.Fits(facts, plan.Rest()); err != nil {
		return err
	}
	if !s.noDelta() {
		if err := plan.Sign(ctx, conn, session.KeptBy(facts)); err != nil {
			// A loss of time, and nothing else.
			if agent.IsLost(err) || ctx.Err() != nil {
				return err
			}
			s.d.Note(err.Error() + "; every path is shipped as a whole")
			plan.Signed = nil
		}
	}
	if k := plan.Parked; k != nil {
		s.d.Note(fmt.Sprintf("%s goes on at %s of %s", k.Path, prose.Size(k.Offset), prose.Size(k.NarSize)))
	}
	result, err := plan.Send(ctx, conn, func(p ship.Progress) { s.d.Emit(session.Event{Kind: session.Shipping, Step: session.Ship, Ship: p}) }, func(sent ship.Sent) {
		s.d.Emit(session.Event{Kind: session.PathSent, Step: session.Ship, Sent: sent})
	})
	s.total.Paths += result.Paths
	s.total.Differences += result.Differences
	s.total.Bytes += result.Bytes
	s.total.Wire += result.Wire
	s.total.Duration += result.Duration
	s.total.Peak = max(s.total.Peak, result.Peak)
	if err == nil {
		s.d.keepSpeed(result)
	}
	return err
}

func (s *shipment) noDelta() bool { return s.d.opts.NoDelta || len(s.whole) > maxWrongBases }

func (s *shipment) summary() string {
	t := s.total
	if t.Paths == 0 {
		return "everything is there already"
	}
	text := fmt.Sprintf("%s as %s, %s", prose.Size(t.Bytes), prose.Size(t.Wire), prose.Count(t.Paths, "path"))
	// What was sent again after a lost connection counts once.
	if n := min(t.Differences, t.Paths); n > 0 {
		text += fmt.Sprintf(", %d as differences", n)
	}
	return text
}

// keepSpeed writes down how fast a ship to the node was.
func (d *deployment) keepSpeed(r ship.Result) {
	if err := ship.KeepSpeed(d.Roots.Speed(d.Inventory.File, d.Node.Name), r); err != nil {
		d.Note(fmt.Sprintf("the speed of this ship is not kept on this machine: %v", err))
	}
}
