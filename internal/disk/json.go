package disk

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// WriteJSON writes v as JSON to a file, and makes the folders above it. The old file stays until the new one is
// whole.
func WriteJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return Disk{}.WriteFile(file, append(text, '\n'), 0o600)
}
