package ship

import (
	"bytes"
	"io"
	"testing"
	"time"

	"ferry/internal/agent"

	"github.com/klauspost/compress/zstd"
)

func TestWhatIsNotCompressedIsAZstdFrame(t *testing.T) {
	data := bytes.Repeat([]byte("some text, "), 40_000)
	for name, sizes := range map[string][]int{
		"nothing":                {},
		"one byte":               {1},
		"a block":                {storedBlock},
		"a block and a byte":     {storedBlock + 1},
		"pieces":                 {1, 70_000, 70_000, 70_000, 3},
		"all at once":            {len(data)},
		"two blocks in two goes": {storedBlock, storedBlock},
	} {
		t.Run(name, func(t *testing.T) {
			var out, want bytes.Buffer
			f := &storedFrame{w: &out}
			for i, n := range sizes {
				want.Write(data[:n])
				if written, err := f.Write(data[:n]); written != n || err != nil {
					t.Fatalf("%d of %d, %v", written, n, err)
				}
				if i%2 == 0 {
					if err := f.Flush(); err != nil {
						t.Fatal(err)
					}
					if out.Len() < want.Len() {
						t.Errorf("after a flush %d of %d bytes are there", out.Len(), want.Len())
					}
				}
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			// Another frame follows in a stream.
			z, err := zstd.NewWriter(&out)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = z.Write([]byte("end"))
			_ = z.Close()
			d, err := zstd.NewReader(&out, zstd.WithDecoderMaxWindow(agent.ShipWindow))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			got, err := io.ReadAll(d)
			if err != nil || string(got) != want.String()+"end" {
				t.Errorf("%d bytes, %v; want %d", len(got), err, want.Len()+3)
			}
		})
	}
}

// TestNothingIsCompressedWhereThatTakesTheTime: as long as more gets through without.
func TestNothingIsCompressedWhereThatTakesTheTime(t *testing.T) {
	c := &compressor{level: zstd.SpeedFastest}
	look := func(milliseconds, blocked int, want zstd.EncoderLevel) {
		t.Helper()
		c.raw = chooseEvery
		const ms = time.Millisecond
		wire := uint64(chooseEvery / 2)
		if c.level == stored {
			wire = chooseEvery
		}
		c.level = c.next(time.Duration(milliseconds)*ms, time.Duration(blocked)*ms, wire)
		if c.level != want {
			t.Fatalf("level %v, want %v", c.level, want)
		}
	}
	look(20, 10, zstd.SpeedFastest) // the link takes half of the time
	look(20, 2, stored)             // 210 MB/s before compression, 105 on the link
	look(10, 10, stored)
	look(30, 30, zstd.SpeedFastest) // another link
	look(20, 2, zstd.SpeedFastest)  // none was slower
	for range tryAgain - 2 {
		look(20, 2, zstd.SpeedFastest)
	}
	look(20, 2, stored)
	look(40, 40, zstd.SpeedFastest)
	look(80, 70, zstd.SpeedDefault) // 26 MB/s on the link
}
