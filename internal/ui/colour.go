package ui

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Paint is a way to colour text. It only adds to what the words say.
type Paint struct{ on bool }

// NewPaint paints what is written to out if that is a terminal that shows colours, and its user has not asked for none
// (NO_COLOR).
func NewPaint(out io.Writer, getenv func(string) string) Paint {
	file, ok := out.(*os.File)
	return Paint{ok && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && getenv("TERM") != "" && term.IsTerminal(int(file.Fd()))}
}

// Red is text that says that something does not work.
func (p Paint) Red(text string) string { return p.paint("31", text) }

// Yellow is text that asks for attention.
func (p Paint) Yellow(text string) string { return p.paint("33", text) }

// Green is text that says that something is well.
func (p Paint) Green(text string) string { return p.paint("32", text) }

func (p Paint) paint(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
