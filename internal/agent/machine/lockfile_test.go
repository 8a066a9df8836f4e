package machine

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestWhoWasElevatedIsKnown reads the auxiliary vectors of processes of either word size, and of this one.
func TestWhoWasElevatedIsKnown(t *testing.T) {
	for _, size := range []int{4, 8} {
		for secure := range uint64(2) {
			var text []byte
			for _, word := range []uint64{33, 0x7fff0000, 6, 4096, 23, secure, 31, 1, 0, 0} {
				if size == 4 {
					text = binary.NativeEndian.AppendUint32(text, uint32(word))
				} else {
					text = binary.NativeEndian.AppendUint64(text, word)
				}
			}
			file := filepath.Join(t.TempDir(), "auxv")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := isElevated(filepath.Dir(file)); got != (secure == 1) {
				t.Errorf("%d bytes, %d: %v", size, secure, got)
			}
		}
	}
	if isElevated(fmt.Sprintf("/proc/%d", os.Getpid())) {
		t.Error("this process")
	}
}
