package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands are all commands that people are told about.
func commands(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			list = append(list, commands(c)...)
		}
	}
	return list
}

func newRoot() *cobra.Command {
	return (&app{Env: Env{Getenv: func(string) string { return "" }}}).root()
}

// TestEveryCommandHasAManPage locks what make man writes: a page for each command, with each of its flags that help names.
func TestEveryCommandHasAManPage(t *testing.T) {
	dir := t.TempDir()
	if err := writeManPages(newRoot(), dir); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range commands(newRoot()) {
		page, err := os.ReadFile(filepath.Join(dir, manName(cmd)+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(string(page), `\fB\-\-`+roff(f.Name)+`\fR`) {
				t.Errorf("%s: --%s is missing", manName(cmd), f.Name)
			}
		})
		if cmd.Example != "" && !strings.Contains(string(page), ".SH EXAMPLES\n") {
			t.Errorf("%s: the examples are missing", manName(cmd))
		}
	}
}

// TestTextStaysTextInAManPage is about characters that man(7) takes for commands or for other characters.
func TestTextStaysTextInAManPage(t *testing.T) {
	for text, want := range map[string]string{
		".hidden":   `\&.hidden`,
		"'quoted'":  `\(aqquoted\(aq`,
		`a\b`:       `a\eb`,
		"--flag":    `\-\-flag`,
		"~/x ^ `y`": `\(ti/x \(ha \(gay\(ga`,
	} {
		if got := roff(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// TestHelpFitsATerminal keeps what is written by hand narrow enough to be read.
func TestHelpFitsATerminal(t *testing.T) {
	for _, cmd := range commands(newRoot()) {
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if n := len([]rune(line)); n > 125 {
				t.Errorf("%s: a line of %d characters: %s", cmd.CommandPath(), n, line)
			}
		}
		if strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short text ends with a full stop", cmd.CommandPath())
		}
	}
}

// TestTheInventoryTopicNamesEveryAttribute that a node may have.
func TestTheInventoryTopicNamesEveryAttribute(t *testing.T) {
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetArgs([]string{"help", "inventory"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, attribute := range []string{"checks", "configuration", "elevate", "impure", "nixpkgs", "system", "tags", "target"} {
		if !strings.Contains(out.String(), "\n  "+attribute+" ") {
			t.Errorf("%s is not explained", attribute)
		}
	}
}
