package prose

import "testing"

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1: "1 B", 999: "999 B", 1000: "1.0 kB", 1049: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB",
		1_500_000: "1.5 MB", 333_045_104: "333 MB", 1_007_002_992: "1.0 GB", 5_000_000_000_000: "5.0 TB", 1<<64 - 1: "18446744 TB",
	} {
		if got := Size(n); got != want {
			t.Errorf("%d is %q instead of %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 paths", 1: "1 path", 2: "2 paths"} {
		if got := Count(n, "path"); got != want {
			t.Errorf("%q", got)
		}
	}
}

func TestCutCountsCharacters(t *testing.T) {
	for in, want := range map[string]string{"": "", "12345": "12345", "123456": "1234…", "ääääää": "ääää…"} {
		if got := Cut(in, 5); got != want {
			t.Errorf("%q is cut to %q", in, got)
		}
	}
}
