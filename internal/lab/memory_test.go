package lab

import "testing"

// TestAMachineWithLittleMemory writes more than that to its disk, which works, and then takes as much, which does not.
func TestAMachineWithLittleMemory(t *testing.T) {
	t.Parallel()
	target := StartTarget(t, Options{Memory: 256 << 20})
	run := func(line string) error {
		return target.Command(t.Context(), "systemd-run", "--quiet", "--wait", "sh", "-c", line).Run()
	}
	if err := run("head -c 300M /dev/zero >/var/tmp/big"); err != nil {
		t.Error(err)
	}
	if n, err := target.OOMKills(); err != nil || n != 0 {
		t.Errorf("%d processes were killed, %v", n, err)
	}
	// A line without an end.
	if err := run("exec tail -n 1 /dev/zero"); err == nil {
		t.Error("there is room for a line without an end")
	}
	if n, err := target.OOMKills(); err != nil || n == 0 {
		t.Errorf("%d processes were killed, %v", n, err)
	}
}
