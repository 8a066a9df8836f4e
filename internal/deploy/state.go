package deploy

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// WriteState writes v as JSON to a file of ferry's state folder, and makes the folders above it. The old file stays until the new
// one is whole.
func WriteState(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	_, err = temp.Write(append(text, '\n'))
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
