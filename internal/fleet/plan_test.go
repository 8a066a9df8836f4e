package fleet

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/inventory"
	"ferry/internal/preview"
	"ferry/internal/session"
)

// TestPlansAreMadeSideBySideAndShownInOrder locks how many are made at once, that they are shown in the nodes' order, each as soon
// as that can be, and that one that fails does not stop the others.
func TestPlansAreMadeSideBySideAndShownInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Each takes as long as its digit says.
		names := []string{"a3", "b1", "c5", "d1", "e1"}
		var mu sync.Mutex
		atWork, most := 0, 0
		var shown, ended []string
		f := (&fakes{t: t}).fleet(Options{Parallel: 2, Ended: func(o Outcome) { ended = append(ended, o.Node.Name) }}, names...)
		begin := time.Now()
		outcomes := f.plan(t.Context(), func(ctx context.Context, s session.Session, node inventory.Node) (*preview.Planned, error) {
			over, err := s.Turn(ctx, node.Name, session.Compare)
			if err != nil {
				return nil, err
			}
			defer over()
			mu.Lock()
			atWork++
			most = max(most, atWork)
			mu.Unlock()
			time.Sleep(time.Duration(node.Name[1]-'0') * time.Second)
			mu.Lock()
			defer mu.Unlock()
			atWork--
			if node.Name == "b1" {
				return nil, errors.New("no")
			}
			return &preview.Planned{Comparison: preview.Comparison{Node: node.Name}}, nil
		}, func(node inventory.Node, p *preview.Planned, err error) {
			if (p == nil) != (err != nil) || p != nil && p.Node != node.Name {
				t.Errorf("%s is shown with %v, %v", node.Name, p, err)
			}
			shown = append(shown, node.Name)
		})
		if got := strings.Join(shown, " "); got != strings.Join(names, " ") || most != 2 || len(ended) != len(names) {
			t.Errorf("they are shown as %s, %d at once, %q ended", got, most, ended)
		}
		if got, want := statusesOf(outcomes), "a3: done, b1: failed, c5: done, d1: done, e1: done"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if took := time.Since(begin); took >= 11*time.Second {
			t.Errorf("it took %v of fake time: one after another", took)
		}
	})
}
