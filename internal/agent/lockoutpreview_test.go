package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/nix"
)

// TestOnlyWhatWouldBeShippedIsTold locks what a target may learn of this machine's files before anything is shipped.
func TestOnlyWhatWouldBeShippedIsTold(t *testing.T) {
	const mine, other = "/nix/store/00000000000000000000000000000000-mine", "/nix/store/11111111111111111111111111111111-other"
	root := t.TempDir()
	for name, text := range map[string]string{
		mine + "/etc/file": "told", mine + "/etc/large": strings.Repeat("x", MaxForeseenFile+1), other + "/secret": "not told", "/etc/shadow": "not told",
	} {
		if err := os.MkdirAll(filepath.Dir(root+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"inner": "etc/file", "outer": other + "/secret", "host": "/etc/shadow", "up": "../../../etc/shadow", "loop": "loop"} {
		if err := os.Symlink(to, root+mine+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	for wanted, want := range map[string]string{
		mine + "/etc/file":            "folder folder file",
		mine + "/inner":               "folder link folder file",
		mine + "/./etc//../inner":     "folder folder link file",
		mine + "/etc/none/deeper":     "folder folder absent",
		mine + "/etc/file/deeper":     "folder folder file",
		mine + "/etc/large":           "folder folder untold",
		mine + "/outer":               "folder link",
		mine + "/host":                "folder link",
		mine + "/up":                  "folder link",
		mine + "/loop":                "folder link",
		mine + "/../../../etc/shadow": "folder",
		other + "/secret":             "",
		"/etc/shadow":                 "",
		"/nix/store":                  "",
		"/nix/store/../../etc/shadow": "",
		"":                            "",
	} {
		files := NewStoreFiles(func(p nix.StorePath) bool { return p == mine }).Below(root)
		var kinds []string
		for _, f := range files.Tell(wanted) {
			kinds = append(kinds, string(f.Kind))
			if string(f.Text) == "not told" || !strings.HasPrefix(f.Path, mine) {
				t.Errorf("%s: %s is told", wanted, f.Path)
			}
		}
		if got := strings.Join(kinds, " "); got != want {
			t.Errorf("%s: %s, want %s", wanted, got, want)
		}
		if again := files.Tell(wanted); len(again) > 0 {
			t.Errorf("%s is told again", wanted)
		}
	}
}

// TestAnAgentThatAsksForEverIsLeft locks that a target that wants what it cannot have gets an error.
func TestAnAgentThatAsksForEverIsLeft(t *testing.T) {
	s := open(t, "serves")
	files := NewStoreFiles(func(nix.StorePath) bool { return false })
	if _, _, err := s.PreviewLockout(soon(t), pathA, "sudo", files); err == nil || !strings.Contains(err.Error(), "asks for files that cannot be told") {
		t.Errorf("got %v", err)
	}
}
