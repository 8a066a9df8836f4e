package ship

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTheLastSpeedIsRemembered locks which ships say something about the link, and that the file of another one stays then.
func TestTheLastSpeedIsRemembered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "speed", "pi.json")
	if got := LastSpeed(file); got != 0 {
		t.Errorf("%d bytes per second before the first ship", got)
	}
	for _, c := range []struct {
		is   string
		ship Result
		want uint64
	}{
		{"a large one", Result{Bytes: 60 << 20, Wire: 20 << 20, Duration: 10 * time.Second}, 2 << 20},
		{"few bytes", Result{Bytes: 3 << 10, Wire: 1 << 10, Duration: time.Second}, 2 << 20},
		{"differences", Result{Bytes: 1 << 30, Wire: 2 << 20, Duration: 10 * time.Second}, 2 << 20},
		{"a faster one", Result{Bytes: 60 << 20, Wire: 20 << 20, Duration: 2 * time.Second}, 10 << 20},
		{"no time", Result{Bytes: 60 << 20, Wire: 20 << 20}, 10 << 20},
	} {
		if err := KeepSpeed(file, c.ship); err != nil {
			t.Fatal(err)
		}
		if got := LastSpeed(file); got != c.want {
			t.Errorf("%s: %d bytes per second, want %d", c.is, got, c.want)
		}
	}
}

// TestADamagedSpeedIsNone locks that whatever is in the file, nothing is guessed, and that the next ship mends it.
func TestADamagedSpeedIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "speed", "pi.json")
	good := Result{Bytes: 60 << 20, Wire: 20 << 20, Duration: 10 * time.Second}
	if err := KeepSpeed(file, good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":          "",
		"half":           `{"format":1,"wire":2097`,
		"another format": `{"format":2,"wire":20971520,"seconds":10}`,
		"no time":        `{"format":1,"wire":20971520,"seconds":0}`,
		"a past time":    `{"format":1,"wire":20971520,"seconds":-1}`,
		"too fast":       `{"format":1,"wire":18446744073709551615,"seconds":1e-300}`,
		"too slow":       `{"format":1,"wire":1,"seconds":1e300}`,
		"negative":       `{"format":1,"wire":-5,"seconds":1}`,
		"long":           strings.Repeat(" ", maxSpeedFile) + `{"format":1,"wire":20971520,"seconds":10}`,
		"zeros":          strings.Repeat("\x00", 60),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := LastSpeed(file); got != 0 {
			t.Errorf("%s: %d bytes per second", name, got)
		}
	}
	if err := KeepSpeed(file, good); err != nil || LastSpeed(file) != 2<<20 {
		t.Errorf("it is not mended: %v", err)
	}
}
