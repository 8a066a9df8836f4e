package inventory

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/nix"
)

const readableExample = "worldReadable = [ ./tests/snakeoil.key ];"

// takeAllowed takes the source again after err has refused it, if the inventory says that everyone may read what was refused. To find
// that out it is read from a source without those files: nothing gets into the store that nobody has allowed.
func (inv *Inventory) takeAllowed(ctx context.Context, s Source, err error) (Source, error) {
	var refusal *Error
	if !errors.As(err, &refusal) || len(refusal.refused) == 0 || inv.options.Configuration != "" ||
		slices.Contains(refusal.refused, inv.place.rel) {
		return s, err
	}
	inv.Source, err = inv.takeSource(ctx, func(t *tree) { t.without, t.note = refusal.refused, nil })
	if err != nil {
		return s, err
	}
	allowed, err := inv.worldReadable(ctx)
	var about *Error
	switch {
	case errors.As(err, &about) && about.Attribute == readableAttribute:
		return s, err
	case err != nil:
		// It may well be that the inventory needs what was left out.
		return s, refusal
	}
	return inv.takeSource(ctx, func(t *tree) { t.public = allowed })
}

// worldReadable reads the attribute from the source, purely if possible.
func (inv *Inventory) worldReadable(ctx context.Context) ([]string, error) {
	impure := inv.Impure
	defer func() { inv.Impure = impure }()
	var d description
	err := inv.ask(ctx, ".worldReadable", &d)
	if what, is := nix.IsPurity(err); is {
		inv.Impure = what
		err = inv.ask(ctx, ".worldReadable", &d)
	}
	if err != nil {
		return nil, err
	}
	return inv.readable(d)
}

const readableAttribute = "worldReadable"

// readable are the paths in the source that the attribute names.
func (inv *Inventory) readable(d description) ([]string, error) {
	fail := func(format string, args ...any) error {
		return &Error{Attribute: readableAttribute, Text: fmt.Sprintf(format, args...), Advice: []string{readableExample}}
	}
	if d.Type != "list" {
		return nil, fail("expected a list of paths, found %s", d.found())
	}
	var paths []string
	for i, item := range d.Items {
		value, err := item.text()
		if err != nil || item.Type != "path" && item.Type != "string" || !strings.HasPrefix(value, "/") {
			return nil, fail("expected a path as element %d, found %s", i+1, item.found())
		}
		rel, err := filepath.Rel(string(inv.Source.Path), filepath.Clean(value))
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			return nil, fail("element %d, %s, is outside of the source", i+1, printable(value))
		}
		paths = append(paths, rel)
	}
	return paths, nil
}
