package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Ended is a process of a machine that has ended, as the kernel has written it down.
type Ended struct {
	Program     string // the name of its file, of which the kernel keeps 15 bytes
	PID, Parent int
	// Executed is false for a process that is a mere copy of its parent.
	Executed bool
}

// Account makes the kernel write down every process of the machine that ends from now on, until the machine goes off. The
// function it returns reads what was written.
func (t *Target) Account(ctx context.Context) (ended func() ([]Ended, error), err error) {
	on := t.current()
	if on == nil {
		return nil, fmt.Errorf("%s: is off", t.name)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// The file is not the machine's, and the kernel keeps no account while its file system is nearly full.
	file := filepath.Join(t.dir, "account")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	// The account is that of the process numbers of whoever asks for it.
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(on.pidOne()), "--pid", "--", program)
	cmd.Env = append(os.Environ(), envStage+"="+stageAccount, envAccount+"="+file)
	if err := quietly(cmd); err != nil {
		return nil, fmt.Errorf("%s: keep account of processes: %w", t.name, err)
	}
	return func() ([]Ended, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return parseAccount(text)
	}, nil
}

// accountStage turns the account on.
func accountStage() error {
	if err := unix.Acct(os.Getenv(envAccount)); err != nil {
		return fmt.Errorf("acct: %w", err)
	}
	return nil
}

// record is the kernel's struct acct_v3.
type record struct {
	Flag, Version        uint8
	TTY                  uint16
	Exit, UID, GID       uint32
	PID, Parent          uint32
	Begin, Elapsed       uint32
	User, System, Memory uint16
	Transferred, Blocks  uint16
	Minor, Major, Swaps  uint16
	Command              [16]byte
}

const (
	accountVersion = 3
	forkedOnly     = 1 // Flag: it has executed nothing
)

// parseAccount reads the kernel's records.
func parseAccount(text []byte) ([]Ended, error) {
	var all []Ended
	for r := bytes.NewReader(text); r.Len() > 0; {
		var one record
		if err := binary.Read(r, binary.NativeEndian, &one); err != nil {
			return nil, err
		}
		if one.Version&0xf != accountVersion {
			return nil, errors.New("the kernel keeps account of processes in another form than version 3")
		}
		name, _, _ := bytes.Cut(one.Command[:], []byte{0})
		all = append(all, Ended{Program: string(name), PID: int(one.PID), Parent: int(one.Parent), Executed: one.Flag&forkedOnly == 0})
	}
	return all, nil
}
