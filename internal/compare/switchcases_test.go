package compare

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/lab/switchcases"
)

// foretold gives what is foretold of a case, as the list of cases has it, with what a person is told of it.
func foretold(t *testing.T, program Program, c switchcases.Case) (does string, troubles []string) {
	t.Helper()
	before, after, err := c.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pending := c.Pending()
	running := &Running{States: c.States(), Files: map[string]string{}, Start: pending["start"], Restart: pending["restart"], Reload: pending["reload"]}
	for unit, folder := range c.From {
		running.Files[unit] = filepath.Join(folder, unit)
	}
	s := foretell(program, before, after, running)
	if s.Refused != "" {
		return "status 1", append(s.Problems, s.Refused)
	}
	entries := append(entriesOf(s.Units, ""), entriesOf(s.UserActions, "user ")...)
	for _, device := range s.Swapoff {
		entries = append(entries, "swapoff "+device)
	}
	if s.Reexec {
		entries = append(entries, "reexec systemd")
	}
	return switchcases.Join(entries), s.Problems
}

func entriesOf(u Units, who string) (entries []string) {
	for verb, units := range map[string][]string{
		"stop": u.Stop, "restart": u.Restart, "reload": u.Reload, "start": u.Start, "skip": u.Skip, "again": u.Again,
	} {
		for _, unit := range units {
			entries = append(entries, who+verb+" "+unit)
		}
	}
	return entries
}

// TestWhatIsForetoldIsWhatTheProgramsDo has all cases of the list that the lab's stand-in is tested against, for each program.
func TestWhatIsForetoldIsWhatTheProgramsDo(t *testing.T) {
	for _, c := range switchcases.All() {
		t.Run(c.Name, func(t *testing.T) {
			for _, program := range switchcases.Programs() {
				got, troubles := foretold(t, Program(program), c)
				t.Logf("foretold\t%s\t%s\t%s\t%s", c.Name, program, got, strings.Join(troubles, "; "))
				if want := c.WithTargets(program); got != want {
					t.Errorf("%s: %q, want %q", program, got, want)
				}
				if want := c.Trouble[program]; want != "" && !strings.Contains(strings.Join(troubles, "\n"), want) || want == "" && len(troubles) > 0 && got != "status 1" {
					t.Errorf("%s: told %q, want %q", program, troubles, want)
				}
			}
		})
	}
}
