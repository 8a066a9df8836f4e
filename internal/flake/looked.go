package flake

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"ferry/internal/nix"
)

// Evaluator evaluates an expression to JSON.
type Evaluator func(context.Context, nix.Expression) ([]byte, error)

// Looking is by for what [Flake.Node] gives: the value is an [Answer] that says which inputs were looked at. Nix tells that by traces
// with a word that no configuration can know, and they are not passed on to the log.
func (f *Flake) Looking(by Evaluator) Evaluator {
	return func(ctx context.Context, e nix.Expression) ([]byte, error) {
		mark := "ferry-looked-at-" + rand.Text() + "-"
		e.Text = strings.Replace(e.Text, Mark, mark, 1)
		seen := &looked{mark: "trace: " + mark, rest: e.Log, keys: map[string]bool{}}
		e.Log = seen
		value, err := by(ctx, e)
		if err != nil {
			return nil, err
		}
		var a Answer
		if err := json.Unmarshal(value, &a); err != nil {
			return nil, fmt.Errorf("answer of Nix: %w", err)
		}
		a.Inputs = seen.known(f.trees)
		return json.Marshal(a)
	}
}

// looked takes the traces of inputs out of a log.
type looked struct {
	mark string
	rest io.Writer // may be nil

	mu   sync.Mutex
	held []byte
	keys map[string]bool
}

func (l *looked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, p...)
	for {
		i := bytes.IndexByte(l.held, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := l.held[:i+1]
		l.held = l.held[i+1:]
		if key, is := strings.CutPrefix(string(line[:i]), l.mark); is {
			l.keys[key] = true
		} else if l.rest != nil {
			if _, err := l.rest.Write(line); err != nil {
				return len(p), err
			}
		}
	}
}

// known are the keys of trees that were looked at.
func (l *looked) known(trees map[string]tree) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	keys := []string{}
	for key := range trees {
		if l.keys[key] {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
