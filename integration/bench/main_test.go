// Package bench measures ferry against what a person would run instead, on one lab target, side by side in one run.
package bench

import (
	"flag"
	"testing"

	"ferry/internal/lab"
)

var (
	write  = flag.String("write", "", "measure everything and write the tables to `FILE`")
	rounds = flag.Int("rounds", 3, "how often each thing is measured; the median counts")
	large  = flag.Bool("large", true, "with -write, measure the closure of 1 GB as well")
)

func TestMain(m *testing.M) { lab.Main(m) }
