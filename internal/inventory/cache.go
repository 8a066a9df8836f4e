package inventory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ferry/internal/disk"
	"ferry/internal/nix"
)

// Cache is a folder of what evaluations gave. Only pure ones are in it, by everything that they depend on: the whole
// expression, which has the source, the pin, the system and ferry's own Nix in it, and Nix's version and settings. So nothing
// in it can be out of date.
type Cache struct {
	Dir string
	// Afresh evaluates whatever is in it, and keeps what that gives.
	Afresh bool
}

// cached is one evaluation.
type cached struct {
	Answer json.RawMessage `json:"answer"`
	// Log is what it wrote for people, warnings of the configuration among it.
	Log string `json:"log"`
}

// What is kept of evaluations: so many, for so long after they were used last. A longer log than maxCachedLog is cut.
const (
	maxCached    = 2000
	cachedFor    = 60 * 24 * time.Hour
	maxCachedLog = 256 << 10
)

// file is where the evaluation of e is.
func (c Cache) file(e nix.Expression, version nix.Version, settings string) string {
	sum := sha256.New()
	for _, part := range []string{"1", version.Edition, version.Text, settings, e.Text} {
		// Each part with its length: no two lists of parts look alike.
		_ = json.NewEncoder(sum).Encode(part)
	}
	return filepath.Join(c.Dir, hex.EncodeToString(sum.Sum(nil))+".json")
}

// evaluator evaluates an expression to JSON.
type evaluator func(context.Context, nix.Expression) ([]byte, error)

// eval has e evaluated by the function by, or takes what it gave before: if e is pure, and if the paths that needs finds in that are still in the
// store. They are kept from then on.
func (inv *Inventory) eval(ctx context.Context, e nix.Expression, by evaluator, needs func(answer []byte) []nix.StorePath) ([]byte, error) {
	c := inv.options.Cache
	if !e.Pure || c.Dir == "" {
		return inv.keptAnswer(ctx, e, by, needs)
	}
	version, err := inv.client.Version(ctx)
	if err != nil {
		return nil, err
	}
	file := c.file(e, version, inv.settings)
	if found, ok := c.read(file); ok {
		paths := needs(found.Answer)
		there := true
		if len(paths) > 0 {
			if there, err = inv.client.Keep(ctx, paths...); err != nil {
				return nil, err
			}
		}
		if there {
			if e.Begun != nil {
				e.Begun()
			}
			if e.Log != nil {
				_, _ = io.WriteString(e.Log, found.Log)
			}
			return found.Answer, nil
		}
	}
	var log bytes.Buffer
	if e.Log != nil {
		e.Log = io.MultiWriter(e.Log, &log)
	}
	answer, err := inv.keptAnswer(ctx, e, by, needs)
	if err == nil {
		// Without it the next evaluation takes longer, and nothing else.
		_ = c.write(file, cached{Answer: answer, Log: string(log.Bytes()[:min(log.Len(), maxCachedLog)])})
	}
	return answer, err
}

// keptAnswer has e evaluated by the function by, again if what needs finds in the answer was collected as garbage between the end of
// the process that has made it and the moment in which it is kept.
func (inv *Inventory) keptAnswer(ctx context.Context, e nix.Expression, by evaluator, needs func(answer []byte) []nix.StorePath) ([]byte, error) {
	var paths []nix.StorePath
	for range nix.Tries {
		answer, err := by(ctx, e)
		if err != nil {
			return nil, err
		}
		if paths = needs(answer); len(paths) == 0 {
			return answer, nil
		}
		if kept, err := inv.client.Keep(ctx, paths...); err != nil || kept {
			return answer, err
		}
	}
	return nil, &nix.CollectedError{Path: paths[0]}
}

// read reads an evaluation, and makes it count as used now. One that cannot be read is not there.
func (c Cache) read(file string) (cached, bool) {
	if c.Afresh {
		return cached{}, false
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return cached{}, false
	}
	var found cached
	if json.Unmarshal(text, &found) != nil || len(found.Answer) == 0 {
		return cached{}, false
	}
	now := time.Now()
	_ = os.Chtimes(file, now, now)
	return found, true
}

// write writes an evaluation, whole or not at all, and removes old ones.
func (c Cache) write(file string, e cached) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	if err := disk.WriteWhole(file, text, 0o600); err != nil {
		return err
	}
	return c.trim()
}

// trim removes what was not used for long, and the oldest of what is too much.
func (c Cache) trim() error {
	files, err := c.files()
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for i, f := range files {
		if i >= maxCached || time.Since(f.ModTime()) > cachedFor {
			err = errors.Join(err, os.Remove(filepath.Join(c.Dir, f.Name())))
		}
	}
	return err
}

// Count tells how many evaluations are in the cache, and how many bytes they take.
func (c Cache) Count() (evaluations int, bytes int64, err error) {
	files, err := c.files()
	for _, f := range files {
		bytes += f.Size()
	}
	return len(files), bytes, err
}

// Clear removes all of them.
func (c Cache) Clear() error {
	files, err := c.files()
	for _, f := range files {
		err = errors.Join(err, os.Remove(filepath.Join(c.Dir, f.Name())))
	}
	return err
}

// files are the cache's own; what else is in its folder is left alone, but for what a ferry that was killed left there.
func (c Cache) files() ([]fs.FileInfo, error) {
	list, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []fs.FileInfo
	for _, entry := range list {
		ours, _ := filepath.Match("*.json", entry.Name())
		left, _ := filepath.Match(".new-*", entry.Name())
		// It may be gone by now: another ferry does the same.
		info, err := entry.Info()
		if err == nil && info.Mode().IsRegular() && (ours || left && time.Since(info.ModTime()) > time.Hour) {
			files = append(files, info)
		}
	}
	return files, nil
}
