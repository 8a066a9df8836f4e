package lab

import (
	"context"
	_ "embed"
	"strings"
)

//go:embed full.sh
var fullText string

// FillDisk leaves no room on the file system that a folder of the machine is on, and returns what gives it back. A folder that
// is on the machine's root is given a file system of its own until then; with the power what was written to that is gone.
func (t *Target) FillDisk(ctx context.Context, folder string) (free func(ctx context.Context) error, err error) {
	size, err := t.Output(ctx, "/bin/sh", "-c", fullText, "full", "fill", folder)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		_, err := t.Output(ctx, "/bin/sh", "-c", fullText, "full", "free", folder, strings.TrimSpace(string(size)))
		return err
	}, nil
}
