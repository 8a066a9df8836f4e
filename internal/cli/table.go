package cli

import (
	"encoding/json"
	"io"
	"strings"
	"unicode/utf8"

	"ferry/internal/prose"
)

// table is what is printed in columns, at most tableWidth wide. Rows are as long as head.
type table struct {
	head []string
	rows []tableRow
	// shrink are the columns that are cut when all of it is too wide, the one that is missed least first, and how narrow each may
	// become.
	shrink []shrinking
	// right are the columns that are aligned to the right.
	right map[int]bool
}

type tableRow struct {
	cells []string
	// below are lines that belong to the row and stand below it, already as wide as they may be.
	below []string
	// paint colours the row's first cell.
	paint func(string) string
}

type shrinking struct{ column, least int }

// tableWidth is how wide a table may be.
const tableWidth = 80

// write writes the table.
func (t *table) write(w io.Writer) error {
	widths := t.widths()
	var b strings.Builder
	for _, row := range append([]tableRow{{cells: t.head}}, t.rows...) {
		line := ""
		for i, cell := range row.cells {
			cell = prose.Cut(cell, widths[i])
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 && row.paint != nil {
				cell = row.paint(cell)
			}
			if i > 0 {
				line += "  "
			}
			if t.right[i] {
				line += space + cell
			} else {
				line += cell + space
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		for _, below := range row.below {
			b.WriteString(below + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) widths() []int {
	widths := make([]int, len(t.head))
	total := 2 * (len(widths) - 1)
	for i := range widths {
		widths[i] = utf8.RuneCountInString(t.head[i])
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row.cells[i]))
		}
		total += widths[i]
	}
	for _, s := range t.shrink {
		narrower := max(s.least, widths[s.column]-max(0, total-tableWidth))
		if narrower < widths[s.column] {
			total -= widths[s.column] - narrower
			widths[s.column] = narrower
		}
	}
	return widths
}

// wrapBehind breaks text into lines of at most tableWidth letters: the first begins with first, the others with as much space as
// rest is long. A word that is longer than a line stays whole: it may be a path, to be copied.
func wrapBehind(first, text string) []string {
	rest := strings.Repeat(" ", utf8.RuneCountInString(first))
	var lines []string
	line, empty := first, true
	for _, word := range strings.Fields(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > tableWidth {
			lines = append(lines, line)
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	return append(lines, strings.TrimRight(line, " "))
}

// writeJSON writes what --json prints.
func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
