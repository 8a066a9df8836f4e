package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hostMirror returns the address of the Debian archive that apt, configured under etc, uses on this machine, or "" if
// none is found. Security archives and other vendors' repositories do not count.
func hostMirror(etc string) string {
	lists, _ := filepath.Glob(filepath.Join(etc, "apt/sources.list.d/*"))
	for _, path := range append([]string{filepath.Join(etc, "apt/sources.list")}, lists...) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		find := mirrorInList
		if strings.HasSuffix(path, ".sources") {
			find = mirrorInSources
		}
		if mirror := find(string(text)); mirror != "" {
			return mirror
		}
	}
	return ""
}

// mirrorInList reads apt's one-line format: deb [options] URI suite component…
func mirrorInList(text string) string {
	for line := range strings.Lines(text) {
		if option := strings.Index(line, "["); option >= 0 {
			if end := strings.Index(line, "]"); end > option {
				line = line[:option] + line[end+1:]
			}
		}
		f := strings.Fields(line)
		if len(f) >= 4 && f[0] == "deb" && isArchive(f[1], f[3:]) {
			return f[1]
		}
	}
	return ""
}

// mirrorInSources reads apt's paragraphs of "Field: value".
func mirrorInSources(text string) string {
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		fields := map[string][]string{}
		for line := range strings.Lines(paragraph) {
			if name, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
				fields[strings.ToLower(name)] = strings.Fields(value)
			}
		}
		for _, uri := range fields["uris"] {
			if slices.Contains(fields["types"], "deb") && isArchive(uri, fields["components"]) {
				return uri
			}
		}
	}
	return ""
}

// isArchive tells Debian's main archive, which by convention sits in a folder "debian", from all else.
func isArchive(uri string, components []string) bool {
	return strings.HasPrefix(uri, "http") && strings.HasSuffix(strings.TrimRight(uri, "/"), "/debian") &&
		slices.Contains(components, "main")
}
