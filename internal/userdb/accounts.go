// Package userdb keeps what a machine knows of its users and groups, and puts it back after an activation has changed it.
//
// A NixOS activation removes every user whom an earlier one has declared and the present one does not, also one who was there
// before anybody declared them, and makes a user who comes back anew: with the password "!" and the declared main group. So an
// activation of the system before does not bring the users before. This package does.
//
// What it keeps has password hashes in it: it is written for root alone, and neither printed nor put into an error.
package userdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The files that make up the accounts of a machine.
var (
	// tables are colon-separated lines that begin with a name. Those of users come with the list of the users that were declared,
	// those of groups with that of groups.
	tables = [...]table{
		{"/etc/group", declaredGroups}, {"/etc/gshadow", declaredGroups},
		{"/etc/passwd", declaredUsers}, {"/etc/shadow", declaredUsers}, {"/etc/subuid", declaredUsers}, {"/etc/subgid", declaredUsers},
	}
	// lists say what an activation has declared: by them the next one decides who goes.
	lists = [...]string{declaredUsers, declaredGroups, "/var/lib/userborn/previous-userborn.json"}
	// numbers say which number a name had, so that nobody else gets it.
	numbers = [...]string{"/var/lib/nixos/uid-map", "/var/lib/nixos/gid-map", "/var/lib/nixos/auto-subuid-map"}
)

const (
	declaredUsers  = "/var/lib/nixos/declarative-users"
	declaredGroups = "/var/lib/nixos/declarative-groups"
)

type table struct{ name, declared string }

// maxFile is how large one of the files may be, in bytes: a machine with more accounts than that has them elsewhere.
const maxFile = 16 << 20

// State is what the files were at a moment. Its zero value says nothing of any.
type State struct {
	// Files are those that were there, by their names; what they say is for root alone.
	Files map[string]File `json:"files"`
}

// File is one of them.
type File struct {
	Content []byte      `json:"content"`
	Mode    os.FileMode `json:"mode"`
	UID     int         `json:"uid"`
	GID     int         `json:"gid"`
}

// String keeps hashes out of what is printed.
func (s State) String() string { return fmt.Sprintf("accounts in %d files", len(s.Files)) }

// GoString is String.
func (s State) GoString() string { return s.String() }

// Read reads the accounts of the machine whose files are below root ("" for this one). A file that is a system's own, in the
// store, is none of them: it changes with the system. Neither is what is no file, or has more than 16 MiB.
func Read(root string) (State, error) {
	s := State{Files: map[string]File{}}
	for _, name := range names() {
		file, err := readFile(root, name)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return State{}, fmt.Errorf("read the accounts: %w", err)
		case file != nil:
			s.Files[name] = *file
		}
	}
	return s, nil
}

func names() []string {
	all := append([]string(nil), lists[:]...)
	all = append(all, numbers[:]...)
	for _, t := range tables {
		all = append(all, t.name)
	}
	return all
}

// readFile reads one; nil for one that is in the store.
func readFile(root, name string) (*File, error) {
	at, err := resolve(root, name)
	if err != nil || inStore(at) {
		return nil, err
	}
	file, err := os.OpenFile(root+at, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, nil
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil || len(content) > maxFile {
		return nil, err
	}
	f := &File{Content: content, Mode: info.Mode().Perm(), UID: -1, GID: -1}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID, f.GID = int(owner.Uid), int(owner.Gid)
	}
	return f, nil
}

// maxLinks is how many links lead to a file at most: NixOS makes /etc/passwd one where /etc cannot be written.
const maxLinks = 20

// resolve follows the links that name is, as the machine below root sees them.
func resolve(root, name string) (string, error) {
	for range maxLinks {
		to, err := os.Readlink(root + name)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, os.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(name), to)
		}
		name = filepath.Clean(to)
	}
	return "", fmt.Errorf("%s: too many links", name)
}

func inStore(name string) bool { return strings.HasPrefix(name, "/nix/store/") }

// Keep writes s into the file name, which only root can read: whole or not at all, and on the disk when it returns.
func (s State) Keep(name string) error { return keep(name, s) }

func keep(name string, what any) error {
	text, err := json.Marshal(what)
	if err == nil {
		err = replace(name, File{Content: text, Mode: 0o600, UID: -1, GID: -1})
	}
	if err != nil {
		return fmt.Errorf("keep the accounts: %w", err)
	}
	return nil
}

// Load reads what Keep has written. The error is [os.ErrNotExist] where there is nothing.
func Load(name string) (State, error) {
	var s State
	err := load(name, &s)
	return s, err
}

func load(name string, what any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if json.Unmarshal(text, what) != nil {
		// What Unmarshal says may have a part of the text in it.
		return fmt.Errorf("%s is not what was kept of accounts", name)
	}
	return nil
}

// replace puts a file in the place of the one called name, with that content, mode and owner: it is whole, and on the disk.
func replace(name string, f File) error {
	next := name + ".ferry"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(f.Content)
	if err == nil && f.UID >= 0 {
		err = file.Chown(f.UID, f.GID)
	}
	if err == nil {
		err = file.Chmod(f.Mode)
	}
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(next, name)
	}
	if err != nil {
		_ = os.Remove(next)
		return err
	}
	return syncFolder(filepath.Dir(name))
}

func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
