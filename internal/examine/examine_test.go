package examine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/health"
	"ferry/internal/inventory"
	"ferry/internal/status"
)

// TestClocksAreComparedWithinWhatIsKnown gives the target's clock as whole seconds, read at some time while ferry waited.
func TestClocksAreComparedWithinWhatIsKnown(t *testing.T) {
	begin := time.Unix(1700000000, 0)
	for name, c := range map[string]struct {
		there, waited time.Duration
		says          string // "": well
	}{
		"the same":                    {0, time.Second, ""},
		"within the wait":             {50 * time.Second, time.Minute, ""},
		"a little behind":             {-30 * time.Second, time.Second, ""},
		"behind":                      {-61 * time.Second, time.Second, "it is 1m0s behind"},
		"ahead":                       {3 * time.Hour, time.Hour, "it is 2h0m0s ahead"},
		"a battery that has run down": {-begin.Sub(time.Unix(0, 0)), time.Second, "it is 472222h13m19s behind"},
	} {
		f := clockFinding(agent.Facts{Time: begin.Add(c.there).Unix()}, begin, begin.Add(c.waited))
		if (f.Attention == status.Fine) != (c.says == "") || !strings.HasPrefix(f.Text, c.says) || (f.Attention > status.Fine) != (len(f.Fixes) > 0) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestFailedUnitsMatterAsTheChecksSay makes the same units harmless or not.
func TestFailedUnitsMatterAsTheChecksSay(t *testing.T) {
	failed := agent.LookResult{Failed: []string{"a.service"}}
	for policy, want := range map[health.UnitPolicy]status.Attention{health.NoNew: status.Warning, health.Ignore: status.Warning, health.None: status.Serious} {
		if f := unitFinding(failed, policy); f.Attention != want || len(f.Fixes) == 0 {
			t.Errorf("%s: %+v", policy, f)
		}
	}
	if f := unitFinding(agent.LookResult{}, health.None); f.Attention != status.Fine {
		t.Errorf("%+v", f)
	}
}

// TestOnlyNewBootFilesNeedRoom compares a system that is here with the one that runs on the target.
func TestOnlyNewBootFilesNeedRoom(t *testing.T) {
	toplevel, store := t.TempDir(), t.TempDir()
	kernel, initrd := filepath.Join(store, "linux"), filepath.Join(store, "initrd")
	for file, size := range map[string]int{kernel: 300, initrd: 50} {
		if err := os.WriteFile(file, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(file, filepath.Join(toplevel, map[string]string{kernel: "kernel", initrd: "initrd"}[file])); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		built bool
		more  agent.LookResult
		size  int64
		known bool
	}{
		"the same file system": {true, agent.LookResult{}, 0, true},
		"not built":            {false, agent.LookResult{BootSize: 70, BootFiles: []string{kernel}}, 70, false},
		"all new":              {true, agent.LookResult{BootSize: 70, BootFiles: []string{"/other"}}, 350, true},
		"another initrd":       {true, agent.LookResult{BootSize: 70, BootFiles: []string{kernel, "/other"}}, 50, true},
		"the same":             {true, agent.LookResult{BootSize: 70, BootFiles: []string{kernel, initrd}}, 0, true},
	} {
		if size, known := bootNeeds(toplevel, c.built, c.more); size != c.size || known != c.known {
			t.Errorf("%s: %d, %v", name, size, known)
		}
	}
}

// TestBuildsAreTestedForWhatIsBuilt has a node that is cross compiled, and one whose evaluation failed.
func TestBuildsAreTestedForWhatIsBuilt(t *testing.T) {
	nodes := []inventory.Node{{System: "aarch64-linux"}, {System: "riscv64-linux"}, {System: "x86_64-linux"}}
	evaluations := []evaluated{{systems: []string{"x86_64-linux", "x86_64-linux"}}, {}, {systems: []string{"x86_64-linux", "x86_64-linux"}}}
	if got := strings.Join(systemsOf(nodes, evaluations), " "); got != "riscv64-linux x86_64-linux" {
		t.Errorf("%s", got)
	}
}
