package leave

import (
	"testing"

	"ferry/internal/action"
	"ferry/internal/run"
)

// TestElevatedImportMeansTheSameInTheShellHere lets sh read the line, which must give ssh one argument with every word of it.
func TestElevatedImportMeansTheSameInTheShellHere(t *testing.T) {
	const script = "gzip -dc ferry-bundle.gz | nix-store --import > /dev/null && rm ferry-bundle.gz && exec /nix/store/x-ferry-pi/nixos-rebuild-switch boot"
	for name, c := range map[string]struct {
		elevate []string
		line    string // where it is fit to be read
	}{
		"sudo":       {[]string{"sudo"}, `"sudo sh -c '` + script + `'"`},
		"with words": {[]string{"doas", "-u", "root"}, `"doas -u root sh -c '` + script + `'"`},
		"quotes":     {[]string{"env", "A=it's \"$HOME\" `x` \\", "sudo"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			line := elevatedImport(c.elevate, "/nix/store/x-ferry-pi", action.Boot)
			if c.line != "" && line != c.line {
				t.Errorf("got %s, want %s", line, c.line)
			}
			out, err := new(run.Runner).Output(t.Context(), run.Command{Argv: []string{"sh", "-c", "printf %s " + line}})
			want := run.QuoteAll(append(append([]string(nil), c.elevate...), "sh", "-c", script))
			if err != nil || string(out) != want {
				t.Errorf("ssh gets %s, %v, want %s", out, err, want)
			}
		})
	}
}
