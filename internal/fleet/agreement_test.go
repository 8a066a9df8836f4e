package fleet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"ferry/internal/preview"
	"ferry/internal/session"
)

// TestOnePersonIsAskedOnceForAllNodes locks that the question comes when every node has come so far or has ended, that it is about
// those on which anything is to be done, in their order, and what the answer does.
func TestOnePersonIsAskedOnceForAllNodes(t *testing.T) {
	failed := map[string]func(func(session.Step) error) error{"b": failing(session.Build, session.Unchanged, errors.New("no"))}
	for name, c := range map[string]struct {
		options Options
		answer  func(ctx context.Context, stop func()) (bool, error)
		asked   int
		want    string
	}{
		"yes": {Options{MaxFailures: -1}, func(context.Context, func()) (bool, error) { return true, nil }, 1, "c: done, a: done, b: failed, d: done"},
		"no": {Options{MaxFailures: -1}, func(context.Context, func()) (bool, error) { return false, nil }, 1,
			"c: not begun, a: not begun, b: failed, d: not begun"},
		"batches": {Options{MaxFailures: -1, Batches: Batches{{count: 1}}}, func(context.Context, func()) (bool, error) { return true, nil }, 1,
			"c: done, a: done, b: failed, d: done"},
		"no terminal any more": {Options{MaxFailures: -1}, func(context.Context, func()) (bool, error) { return false, errors.New("gone") }, 1,
			"c: failed, a: failed, b: failed, d: failed"},
		"too many have failed": {Options{}, func(context.Context, func()) (bool, error) { return true, nil }, 0,
			"c: not begun, a: not begun, b: failed, d: not begun"},
		"interrupted": {Options{MaxFailures: -1}, func(ctx context.Context, stop func()) (bool, error) {
			stop()
			<-ctx.Done()
			return false, ctx.Err()
		}, 1, "c: not begun, a: not begun, b: failed, d: not begun"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				f := &fakes{t: t, fails: failed}
				asked := 0
				c.options.Agree = func(ctx context.Context, planned []*preview.Planned) (bool, error) {
					asked++
					var names []string
					for _, p := range planned {
						names = append(names, p.Node)
					}
					if got := strings.Join(names, " "); got != "c a d" || f.most > 0 {
						t.Errorf("it is asked about %s, and %d were changed before", got, f.most)
					}
					return c.answer(ctx, stop)
				}
				outcomes := f.fleet(c.options, "c", "a", "b", "d").run(ctx)
				if got := statusesOf(outcomes); got != c.want || asked != c.asked {
					t.Errorf("got %s\nwant %s\nasked %d times", got, c.want, asked)
				}
			})
		})
	}
}
