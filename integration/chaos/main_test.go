// Package chaos_test hurts deployments at random: it picks a phase, a fault and a moment in the phase, and looks each time at one
// thing only: that the target answers, runs the old system or the new one, whole, never boots what was not confirmed, has written
// down what became of it, and has nothing left of the deployment.
//
// Without flags it is a short run of known faults, for every day; make chaos is the long one, with a seed of its own.
package chaos_test

import (
	"flag"
	"testing"
	"time"

	"ferry/internal/lab"
)

var (
	seed    = flag.Uint64("seed", 2735, "what the faults and their moments follow from; 0: the clock's")
	first   = flag.Int("first", 1, "begin with round `N` of the seed: one round can be repeated without those before it")
	rounds  = flag.Int("rounds", 10, "how many deployments are hurt")
	limit   = flag.Duration("time", 10*time.Minute, "begin no round after that `TIME`")
	login   = flag.String("login", "", "as whom all targets are deployed to; else alice and root by turns")
	targets = flag.Int("targets", 3, "on how many targets at once")
	lossy   = flag.Bool("lossy", false, "all targets have disks that lose with the power what was not synced; else every third one has")
	stop    = flag.Bool("stop", false, "end with the first violation")
)

func TestMain(m *testing.M) { lab.Main(m) }
