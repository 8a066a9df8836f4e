package nix

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/run"
)

// TestManyAreToldByOneProcessWhatIsValid locks that each is told of its own paths, and that nobody depends on who asked first.
func TestManyAreToldByOneProcessWhatIsValid(t *testing.T) {
	useRealNix(t)
	valid, missing := addReal(t, oddTree(t)), StorePath("/nix/store/"+someHash+"-missing")
	for title, leaves := range map[string]bool{"all stay": false, "the first one leaves": true} {
		t.Run(title, func(t *testing.T) {
			var processes atomic.Int64
			c := &Client{Runner: &run.Runner{Trace: func([]string) { processes.Add(1) }}}
			// As if a process ran.
			c.validity.busy = make(chan struct{}, 1)
			c.validity.busy <- struct{}{}
			first, leave := context.WithCancel(t.Context())
			defer leave()
			var group sync.WaitGroup
			group.Go(func() {
				got, err := c.Valid(first, valid, valid)
				if leaves != errors.Is(err, context.Canceled) || got == leaves {
					t.Errorf("the first one was told %t, %v", got, err)
				}
			})
			joined := func(n int) {
				t.Helper()
				for limit := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
					c.validity.mu.Lock()
					next := c.validity.next
					there := next != nil && len(next.paths) == n
					c.validity.mu.Unlock()
					if there {
						return
					}
					if time.Now().After(limit) {
						t.Fatalf("%d paths were never asked for", n)
					}
				}
			}
			joined(2)
			for i := range 20 {
				group.Go(func() {
					paths := []StorePath{valid}
					if i%2 == 1 {
						paths = append(paths, missing)
					}
					if got, err := c.Valid(t.Context(), paths...); err != nil || got != (i%2 == 0) {
						t.Errorf("%q: %t, %v", paths, got, err)
					}
				})
			}
			joined(32)
			if leaves {
				leave()
				joined(30)
			}
			<-c.validity.busy
			group.Wait()
			if n := processes.Load(); n != 1 {
				t.Errorf("%d processes for all", n)
			}
		})
	}
}
