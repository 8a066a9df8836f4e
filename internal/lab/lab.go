// Package lab gives tests real machines on this one: target machines that boot systemd, answer ssh and have sudo and
// Nix, and building machines with a Nix store of their own.
//
// Everything runs in namespaces made for one run ([Enter], [Main]): a run has its own processes, mounts, network and
// scratch folder, two runs never meet, and when a run ends, in whatever way, all of it is gone. It needs root and what
// lab/setup installs. Base roots, the Debian systems under every machine, are made once and kept (see [Base]).
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// The environment by which the stages of one run know each other (see Enter).
const (
	envStage   = "FERRY_LAB_STAGE"
	envScratch = "FERRY_LAB_SCRATCH"
	envCache   = "FERRY_LAB_CACHE"
	envSuites  = "FERRY_LAB_SUITES"
	envAccount = "FERRY_LAB_ACCOUNT"
)

// ErrOutside means that a machine was asked for outside the namespaces of a run.
var ErrOutside = errors.New("not inside a lab: TestMain must call lab.Main")

// run is the lab this process is inside of.
type run struct {
	// scratch is the run's folder; its base name is unique on this machine and names the run's cgroup too.
	scratch string
}

// current says which run this process is in.
func current() (run, error) {
	if os.Getenv(envStage) != stageInside {
		return run{}, ErrOutside
	}
	return run{scratch: os.Getenv(envScratch)}, nil
}

func (r run) id() string { return filepath.Base(r.scratch) }

// Scratch returns the folder of the run this process is in. Whatever is put there is removed when the run ends.
func Scratch() (string, error) {
	r, err := current()
	return r.scratch, err
}

// claim makes the first free folder scratch/kind/N with 1 ≤ N ≤ last and returns it with N. Removing the folder gives N back.
func (r run) claim(kind string, last int) (string, int, error) {
	parent := filepath.Join(r.scratch, kind)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", 0, err
	}
	for n := 1; n <= last; n++ {
		dir := filepath.Join(parent, strconv.Itoa(n))
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			return dir, n, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return "", 0, err
		}
	}
	return "", 0, fmt.Errorf("%d %s are running, which is as many as a lab can hold", last, kind)
}
