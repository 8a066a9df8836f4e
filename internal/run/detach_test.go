package run_test

import (
	"os"
	"strings"
	"testing"

	"ferry/internal/run"
)

// TestADetachedProcessHasASessionOfItsOwnAndTheFilesThatItIsGiven reads what the process says of itself.
func TestADetachedProcessHasASessionOfItsOwnAndTheFilesThatItIsGiven(t *testing.T) {
	t.Setenv("FERRY_TEST_DETACH", "here")
	says, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer says.Close()
	extra, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	const script = `echo "in $(wc -c) at $PWD env $FERRY_TEST_DETACH session $([ "$(cut -d' ' -f6 /proc/$$/stat)" = $$ ] && echo own)"; echo three >&3`
	_, err = run.Detach([]string{"/bin/sh", "-c", script}, nil, end, nil, extra)
	_ = end.Close()
	if err != nil {
		t.Fatal(err)
	}
	// It ends when nobody has the other end any more: nothing else than what it was given is open in it.
	text := make([]byte, 0, 256)
	for buffer := make([]byte, 256); ; {
		n, err := says.Read(buffer)
		text = append(text, buffer[:n]...)
		if err != nil {
			break
		}
	}
	if got := strings.TrimSpace(string(text)); got != "in 0 at / env here session own" {
		t.Errorf("it says %q", got)
	}
	if got, err := os.ReadFile(extra.Name()); string(got) != "three\n" || err != nil {
		t.Errorf("the fourth file has %q, %v", got, err)
	}
}

// TestADetachedProcessCanBeKilled has one that would go on for long.
func TestADetachedProcessCanBeKilled(t *testing.T) {
	says, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer says.Close()
	d, err := run.Detach([]string{"/bin/sh", "-c", "exec sleep 600"}, nil, end)
	_ = end.Close()
	if err != nil {
		t.Fatal(err)
	}
	d.Kill()
	if n, err := says.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("it goes on")
	}
}

// TestADetachedProgramIsAPath locks that PATH has no say.
func TestADetachedProgramIsAPath(t *testing.T) {
	if _, err := run.Detach([]string{"sh"}); err == nil {
		t.Error("sh was found somewhere")
	}
}
