package disk_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/disk"
	"ferry/internal/lab"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests where a file system may be mounted that loses what was not synced.
func TestMain(m *testing.M) { lab.Main(m) }

// content is a file's, or why there is none.
func content(file string) string {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "none"
	case errors.Is(err, unix.EISDIR):
		return "a folder"
	}
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// appendTo writes to the end of a file, which it makes if there is none.
func appendTo(d disk.Disk, name, text string) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, d.SyncFile(file), file.Close())
}

// TestWhatIsDoneOutlivesAPowerCut locks for each function that its work is on the disk when it returns, and that the file system
// which it is tried on would lose it otherwise.
func TestWhatIsDoneOutlivesAPowerCut(t *testing.T) {
	t.Parallel()
	var d disk.Disk
	for name, c := range map[string]struct {
		// before is on the disk.
		before func(in string) error
		does   func(in string) error
		// file has content after the power cut, if it was done.
		file, content string
	}{
		"a new file": {nil, func(in string) error { return d.WriteFile(in+"/new", []byte("text"), 0o600) }, "new", "text"},
		"a file that replaces another": {
			func(in string) error { return os.WriteFile(in+"/file", []byte("old"), 0o600) },
			func(in string) error { return d.WriteFile(in+"/file", []byte("text"), 0o600) }, "file", "text",
		},
		"a link": {
			func(in string) error { return os.WriteFile(in+"/file", []byte("text"), 0o600) },
			func(in string) error { return d.Link("file", in+"/link") }, "link", "text",
		},
		"a link that replaces another": {
			func(in string) error {
				return errors.Join(os.WriteFile(in+"/file", []byte("text"), 0o600), os.Symlink("old", in+"/link"))
			},
			func(in string) error { return d.Link("file", in+"/link") }, "link", "text",
		},
		"folders": {
			nil, func(in string) error { return d.MkdirAll(in+"/one/two/three", 0o700) }, "one/two/three", "a folder",
		},
		"a file that was removed": {
			func(in string) error { return os.WriteFile(in+"/file", []byte("old"), 0o600) },
			func(in string) error { return errors.Join(os.Remove(in+"/file"), d.SyncFolder(in)) }, "file", "none",
		},
		"a file that was written to": {
			func(in string) error { return os.WriteFile(in+"/file", []byte("te"), 0o600) },
			func(in string) error { return appendTo(d, in+"/file", "xt") }, "file", "text",
		},
		"a new file that was written to": {
			nil, func(in string) error { return appendTo(d, in+"/file", "text") }, "file", "text",
		},
		"all that was written": {
			nil, func(in string) error {
				return errors.Join(os.WriteFile(in+"/file", []byte("text"), 0o600), d.SyncFilesystems(context.Background(), in+"/not-there", in))
			}, "file", "text",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lossy := lab.StartDisk(t)
			in := filepath.Join(lossy.Folder, "in")
			if err := os.Mkdir(in, 0o755); err != nil {
				t.Fatal(err)
			}
			if c.before != nil {
				if err := c.before(in); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(d.SyncFilesystems(t.Context(), in), c.does(in)); err != nil {
				t.Fatal(err)
			}
			if got := content(filepath.Join(in, c.file)); got != c.content {
				t.Errorf("it is %q", got)
			}
			if err := os.WriteFile(filepath.Join(in, "unsynced"), []byte("lost"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := lossy.PowerCut(); err != nil {
				t.Fatal(err)
			}
			if got := content(filepath.Join(in, c.file)); got != c.content {
				t.Errorf("after the power cut it is %q", got)
			}
			if got := content(filepath.Join(in, "unsynced")); got != "none" {
				t.Errorf("nothing is ever lost there: %q", got)
			}
		})
	}
}

// TestWriteFileIsWholeOrNotAtAll locks that what fails leaves the old file, and nothing besides.
func TestWriteFileIsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	var d disk.Disk
	if err := d.WriteFile(folder+"/file", []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(folder + "/file"); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.MkdirAll(folder+"/folder/in", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile(folder+"/folder", []byte("new"), 0o640); err == nil {
		t.Error("a folder was replaced")
	}
	if err := d.Link("file", folder+"/folder"); err == nil {
		t.Error("a folder was replaced by a link")
	}
	if err := d.WriteFile(folder+"/nowhere/file", []byte("new"), 0o640); err == nil {
		t.Error("there is no such folder")
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 2 {
		t.Errorf("there is %v, %v", entries, err)
	}
}

// TestADiskThatHangsIsNotWaitedFor locks that the end of the context is enough, and that a failure is told.
func TestADiskThatHangsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("it took too long")
	cancel(why)
	// Who opens a pipe for reading waits for who writes.
	if err := (disk.Disk{}).SyncFilesystems(ctx, pipe); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	writer, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if err := (disk.Disk{}).SyncFilesystems(t.Context(), loop); err == nil {
		t.Error("what cannot be opened was synced")
	}
}
