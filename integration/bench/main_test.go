// Package bench measures ferry against what a person would run instead, on one lab target, side by side in one run.
package bench

import (
	"flag"
	"testing"

	"ferry/internal/lab"
)

var (
	write    = flag.String("write", "", "measure everything and write the tables to `FILE`")
	rounds   = flag.Int("rounds", 3, "how often each thing is measured; the median counts")
	only     = flag.String("only", "", "with -write, measure the sections whose titles match `REGEXP`, and leave the others in FILE as they are")
	cases    = flag.String("case", "", "with -write, measure the cases of shipping whose names match `REGEXP`")
	releases = flag.String("releases", "", "the `FOLDER` that lab/point-releases has filled")
	large    = flag.Bool("large", true, "with -write, measure the closure of 1 GB as well")
)

func TestMain(m *testing.M) { lab.Main(m) }
