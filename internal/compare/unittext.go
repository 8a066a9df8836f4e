package compare

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// unitText is what a unit says, as a switch program reads it: by section and key, the values in order. A key that was emptied is
// there without any.
type unitText map[string]map[string][]string

// flat is the section of the program in Perl, which looks at none.
const flat = ""

func (t unitText) values(section, key string) []string {
	if all, isFlat := t[flat]; isFlat {
		return all[key]
	}
	return t[section][key]
}

// is is a boolean: the last value counts, and true is what the program takes for that, anything else is false.
func (t unitText) is(section, key string, otherwise bool) bool {
	values := t.values(section, key)
	if len(values) == 0 {
		return otherwise
	}
	switch value := values[len(values)-1]; value {
	case "yes", "true":
		return true
	case "1", "on":
		_, isFlat := t[flat]
		return !isFlat
	}
	return false
}

// words are those of all values of a key.
func (t unitText) words(section, key string) []string {
	return strings.Fields(strings.Join(t.values(section, key), " "))
}

// readUnit reads files of a unit, one after the other.
func readUnit(program Program, files ...string) (unitText, error) {
	unit := unitText{}
	for _, file := range files {
		text, err := readSome(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if program == Perl {
			unit.addLines(text)
			continue
		}
		if err := unit.add(program, text); err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
	}
	return unit, nil
}

// addLines adds a text in the way of the program in Perl: what is before the first sign of a line, the last line of a key counting.
func (t unitText) addLines(text string) {
	if t[flat] == nil {
		t[flat] = map[string][]string{}
	}
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "="); found && key != "" {
			t[flat][key] = []string{value}
		}
	}
}

// readAsSystemd reads files of a unit as systemd does, as far as that is needed here: what cannot be read is left out.
func readAsSystemd(files ...string) unitText {
	unit := unitText{}
	for _, file := range files {
		text, err := readSome(file)
		if err != nil {
			continue
		}
		section, line := "", ""
		for part := range strings.Lines(text) {
			part = strings.TrimRight(part, "\r\n")
			if trimmed := strings.TrimSpace(part); trimmed == "" && line == "" || trimmed != "" && (trimmed[0] == '#' || trimmed[0] == ';') {
				continue
			}
			if rest, goesOn := strings.CutSuffix(part, `\`); goesOn {
				line += rest + " "
				continue
			}
			whole := strings.TrimSpace(line + part)
			line = ""
			if strings.HasPrefix(whole, "[") && strings.HasSuffix(whole, "]") {
				section = whole[1 : len(whole)-1]
				continue
			}
			key, value, found := strings.Cut(whole, "=")
			if !found || section == "" {
				continue
			}
			if unit[section] == nil {
				unit[section] = map[string][]string{}
			}
			key, value = strings.TrimSpace(key), strings.TrimSpace(value)
			if unit[section][key] = append(unit[section][key], value); value == "" {
				unit[section][key] = nil
			}
		}
	}
	return unit
}

// add adds a text in the way of the later programs.
func (t unitText) add(program Program, text string) error {
	if !utf8.ValidString(text) {
		return errors.New("not UTF-8")
	}
	p := &unitParser{program: program, text: text}
	section := ""
	var block [][2]string
	end := func() {
		if section != "" {
			if t[section] == nil {
				t[section] = map[string][]string{}
			}
			t.addBlock(section, block)
		}
		block = nil
	}
	for {
		indented := p.skip()
		if p.text == "" {
			end()
			return nil
		}
		comment := p.text[0] == '#' || p.text[0] == ';'
		switch {
		case comment && !indented:
			p.line()
		case comment && program != Today:
			return errors.New("an indented comment")
		case p.text[0] == '[':
			name, _, closed := strings.Cut(p.line()[1:], "]")
			if !closed {
				return errors.New("a section without an end")
			}
			end()
			section = strings.TrimSpace(name)
		default:
			key, value, err := p.pair()
			if err != nil {
				return err
			}
			block = append(block, [2]string{key, value})
		}
	}
}

// addBlock adds what is between two headers. Each time that a key is there, all its values of the block are added.
func (t unitText) addBlock(section string, block [][2]string) {
	for _, pair := range block {
		key := pair[0]
		values := t[section][key]
		if values == nil {
			values = []string{}
		}
		for _, other := range block {
			switch {
			case other[0] != key:
			case other[1] == "":
				values = []string{}
			default:
				values = append(values, other[1])
			}
		}
		t[section][key] = values
	}
}

// unitParser goes through a text.
type unitParser struct {
	program Program
	text    string // what is left
}

// skip passes over blanks and empty lines, and tells whether it stopped within a line.
func (p *unitParser) skip() (indented bool) {
	rest := strings.TrimLeft(p.text, " \t\r\n")
	passed := p.text[:len(p.text)-len(rest)]
	p.text = rest
	return strings.HasSuffix(passed, " ") || strings.HasSuffix(passed, "\t")
}

// line takes the rest of a line.
func (p *unitParser) line() string {
	at := strings.IndexAny(p.text, "\r\n")
	if at < 0 {
		line := p.text
		p.text = ""
		return line
	}
	line := p.text[:at]
	p.text = p.text[at+1:]
	return line
}

// pair takes a key, which goes on until there is a sign, and its value.
func (p *unitParser) pair() (key, value string, err error) {
	at := strings.IndexAny(p.text, "=:")
	if at < 0 {
		return "", "", errors.New("a line without =")
	}
	key = strings.TrimSpace(p.text[:at])
	p.text = strings.TrimLeft(p.text[at+1:], " \t")
	if p.text != "" && (p.text[0] == '"' || p.text[0] == '\'') {
		quoted, rest, closed := strings.Cut(p.text[1:], p.text[:1])
		if !closed {
			return "", "", errors.New("a quote without its partner")
		}
		p.text, value = rest, quoted
	}
	return key, strings.TrimSpace(value + p.rest()), nil
}

// rest takes the rest of a value. Today a comment may end it, and a backslash makes it go on.
func (p *unitParser) rest() string {
	if p.program != Today {
		return p.line()
	}
	value := ""
	for {
		line := p.line()
		for n := 1; n < len(line); n++ {
			if (line[n] == ';' || line[n] == '#') && (line[n-1] == ' ' || line[n-1] == '\t') {
				return value + line[:n-1]
			}
		}
		joined, goesOn := strings.CutSuffix(line, `\`)
		value += joined
		if !goesOn || p.text == "" {
			return value
		}
		for p.text != "" && (p.text[0] == '#' || p.text[0] == ';') {
			p.line()
		}
	}
}

// difference says what a change of a unit asks for.
type difference int

const (
	same         difference = iota
	needsReload             // what can be taken over by a reload
	needsRestart            // more than that
)

// unimportant are the keys of [Unit] whose change asks for nothing.
var unimportant = []string{
	"Description", "Documentation", "OnFailure", "OnSuccess", "OnFailureJobMode", "IgnoreOnIsolate", "StopWhenUnneeded", "RefuseManualStart",
	"RefuseManualStop", "AllowIsolate", "CollectMode", "SourcePath",
}

// differenceOf compares two texts of a unit.
func differenceOf(program Program, before, after unitText) difference {
	worst := same
	for section, keys := range before {
		worst = max(worst, differenceIn(program, section, keys, after[section]))
	}
	for section, keys := range after {
		if before[section] == nil {
			worst = max(worst, differenceIn(program, section, nil, keys))
		}
	}
	return worst
}

func differenceIn(program Program, section string, before, after map[string][]string) difference {
	if section == "Install" {
		// That is for those who enable units by links, which NixOS makes itself.
		return same
	}
	news := 0
	for key := range after {
		if before[key] == nil {
			news++
		}
	}
	worst := same
	for key, is := range after {
		was, both := before[key]
		switch {
		case both && slices.Equal(was, is), section == "Unit" && slices.Contains(unimportant, key):
		case section == "Unit" && key == "X-Reload-Triggers", section == "Mount" && key == "Options" && both,
			section == "Service" && key == "ExecReload" && program == Today && (both || news == 1):
			worst = max(worst, needsReload)
		default:
			return needsRestart
		}
	}
	for key := range before {
		switch _, both := after[key]; {
		case both:
		case section == "Unit" && (key == "X-Reload-Triggers" || slices.Contains(unimportant, key)):
		case section == "Service" && key == "ExecReload" && program == Today:
		default:
			return needsRestart
		}
	}
	return worst
}

// maxFile is how much of a file is read.
const maxFile = 1 << 20

func readSome(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	return string(text), err
}

// dropIns are the additions in a folder, in order.
func dropIns(folder string) []string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	var files []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".conf") {
			files = append(files, filepath.Join(folder, entry.Name()))
		}
	}
	return files
}
