package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// unitText is what a unit's files say: by section and key, the values in their order. A key that was emptied is there without
// any.
type unitText map[string]map[string][]string

// readUnit reads a unit's file and then each .conf in the drop-in folders, in the order of their names. What a later file says
// is added to what is there.
func readUnit(d dialect, file string, dropIns ...string) (unitText, error) {
	files := []string{file}
	for _, folder := range dropIns {
		entries, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			if strings.HasSuffix(entry.Name(), ".conf") {
				files = append(files, filepath.Join(folder, entry.Name()))
			}
		}
	}
	unit := unitText{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, message{"Failed to open unit file " + name, err}
		}
		if err := unit.add(d, string(text)); err != nil {
			return nil, message{"Failed to parse " + name, err}
		}
	}
	return unit, nil
}

// ofPerl is the section of all keys in a text that was read as the program in Perl does, which looks at no sections.
const ofPerl = ""

// readAsPerl reads a unit's file and its addition, if they are there: of each line what is before the first sign, and of the lines
// of a key the last.
func readAsPerl(files ...string) (unitText, error) {
	keys := map[string][]string{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "="); found && key != "" {
				keys[key] = []string{value}
			}
		}
	}
	return unitText{ofPerl: keys}, nil
}

func (u unitText) values(section, key string) []string {
	if keys, is := u[ofPerl]; is {
		return keys[key]
	}
	return u[section][key]
}

// isTrue is a boolean key's value: the last one counts, and only four words are true, two of them for the program in Perl.
func (u unitText) isTrue(section, key string, otherwise bool) bool {
	values := u.values(section, key)
	if len(values) == 0 {
		return otherwise
	}
	switch values[len(values)-1] {
	case "yes", "true":
		return true
	case "1", "on":
		_, is := u[ofPerl]
		return !is
	}
	return false
}

// add adds what a file's text says.
func (u unitText) add(d dialect, text string) error {
	if !utf8.ValidString(text) {
		return errors.New("not UTF-8")
	}
	s := scanner{dialect: d, rest: text}
	section := ""
	var block []setting
	flush := func() {
		u.addBlock(section, block)
		block = nil
	}
	for {
		s.skipBlank()
		switch {
		case s.rest == "":
			flush()
			return nil
		case s.atComment():
			s.line()
		case s.dialect != today && (s.rest[0] == '#' || s.rest[0] == ';'):
			return errors.New("an indented comment")
		case s.rest[0] == '[':
			header := strings.TrimSpace(s.line())
			name, _, closed := strings.Cut(header[1:], "]")
			if !closed {
				return errors.New("a section without an end")
			}
			flush()
			section = strings.TrimSpace(name)
			if section != "" && u[section] == nil {
				u[section] = map[string][]string{}
			}
		default:
			next, err := s.setting()
			if err != nil {
				return err
			}
			block = append(block, next)
		}
	}
}

type setting struct{ key, value string }

// addBlock adds the settings of one block of a section. A key that is there n times counts n times with all its values: that is
// what the program does, by reading all of them at each.
func (u unitText) addBlock(section string, block []setting) {
	if section == "" {
		return
	}
	for _, at := range block {
		values := u[section][at.key]
		if values == nil {
			values = []string{}
		}
		for _, each := range block {
			switch {
			case each.key != at.key:
			case each.value == "":
				values = []string{}
			default:
				values = append(values, each.value)
			}
		}
		u[section][at.key] = values
	}
}

// scanner reads a text in the way of the parser that the program uses, oddities included.
type scanner struct {
	dialect  dialect
	rest     string
	indented bool // blanks were skipped on this line
}

func (s *scanner) skipBlank() {
	left := strings.TrimLeft(s.rest, " \t\r\n")
	skipped := s.rest[:len(s.rest)-len(left)]
	s.indented = skipped != "" && !strings.HasSuffix(skipped, "\n") && !strings.HasSuffix(skipped, "\r")
	s.rest = left
}

// atComment tells whether a comment begins here. None is indented: what looks like one is the beginning of the next key.
func (s *scanner) atComment() bool { return !s.indented && (s.rest[0] == '#' || s.rest[0] == ';') }

// line takes the rest of the line, without its end.
func (s *scanner) line() string {
	end := strings.IndexAny(s.rest, "\r\n")
	if end < 0 {
		end = len(s.rest)
	}
	line := s.rest[:end]
	s.rest = s.rest[min(len(s.rest), end+1):]
	return line
}

// setting takes a key and its value. A key goes on over line ends until there is a sign.
func (s *scanner) setting() (setting, error) {
	sign := strings.IndexAny(s.rest, "=:")
	if sign < 0 {
		return setting{}, errors.New("a line without =")
	}
	key := strings.TrimSpace(s.rest[:sign])
	s.rest = strings.TrimLeft(s.rest[sign+1:], " \t")
	value, err := s.value()
	return setting{key, value}, err
}

func (s *scanner) value() (string, error) {
	if s.rest != "" && (s.rest[0] == '"' || s.rest[0] == '\'') {
		inside, after, closed := strings.Cut(s.rest[1:], s.rest[:1])
		if !closed {
			return "", errors.New("a quote without its partner")
		}
		s.rest = after
		return strings.TrimSpace(inside + s.end()), nil
	}
	return strings.TrimSpace(s.end()), nil
}

// end is the rest of a value up to the end of its line, or of the lines that a backslash joins to it.
func (s *scanner) end() string {
	if s.dialect != today {
		return s.line()
	}
	var value strings.Builder
	for {
		line := s.line()
		if cut := inlineComment(line); cut >= 0 {
			value.WriteString(line[:cut])
			return value.String()
		}
		joined, goesOn := strings.CutSuffix(line, `\`)
		value.WriteString(joined)
		if !goesOn || s.rest == "" {
			return value.String()
		}
		for s.rest != "" && (s.rest[0] == '#' || s.rest[0] == ';') {
			s.line()
		}
	}
}

// inlineComment is where a comment begins in a line: at a blank before ; or #. -1: nowhere.
func inlineComment(line string) int {
	for i := 1; i < len(line); i++ {
		if (line[i] == ';' || line[i] == '#') && (line[i-1] == ' ' || line[i-1] == '\t') {
			return i - 1
		}
	}
	return -1
}

// difference is what a switch has to do about two texts of a unit.
type difference int

const (
	same difference = iota
	reloads
	restarts
)

// ignored are the keys of [Unit] that change nothing in a unit that runs.
func ignored() []string {
	return []string{
		"Description", "Documentation", "OnFailure", "OnSuccess", "OnFailureJobMode", "IgnoreOnIsolate", "StopWhenUnneeded",
		"RefuseManualStart", "RefuseManualStop", "AllowIsolate", "CollectMode", "SourcePath",
	}
}

// compareTexts tells what the difference between two texts asks for.
func compareTexts(d dialect, before, after unitText) difference {
	worst := same
	for section := range before {
		worst = max(worst, compareSections(d, section, before[section], after[section]))
	}
	for section := range after {
		if _, known := before[section]; !known {
			worst = max(worst, compareSections(d, section, nil, after[section]))
		}
	}
	return worst
}

func compareSections(d dialect, section string, before, after map[string][]string) difference {
	if section == "Install" {
		return same
	}
	quiet := ignored()
	worst, added := same, 0
	for key := range after {
		if _, known := before[key]; !known {
			added++
		}
	}
	for key, is := range after {
		was, known := before[key]
		switch {
		case known && slices.Equal(was, is):
		case section == "Unit" && slices.Contains(quiet, key):
		case section == "Unit" && key == "X-Reload-Triggers":
			worst = max(worst, reloads)
		case section == "Service" && key == "ExecReload" && d == today && (known || added == 1):
			worst = max(worst, reloads)
		case section == "Mount" && key == "Options" && known:
			worst = max(worst, reloads)
		default:
			worst = restarts
		}
	}
	for key := range before {
		if _, known := after[key]; known {
			continue
		}
		switch {
		case section == "Unit" && (slices.Contains(quiet, key) || key == "X-Reload-Triggers"):
		case section == "Service" && key == "ExecReload" && d == today:
		default:
			worst = restarts
		}
	}
	return worst
}
