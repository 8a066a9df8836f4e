package ferry_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestWhatTheDocsNameIsThere locks that files and folders of the checkout that a page names exist, and the pages that it links to.
func TestWhatTheDocsNameIsThere(t *testing.T) {
	pages, err := filepath.Glob("doc/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "README.md", "CONTRIBUTING.md")
	named := regexp.MustCompile("`((?:internal|integration|lab|cmd|doc|release|changelog)/[A-Za-z0-9_./-]+)`")
	linked := regexp.MustCompile(`\]\(([A-Za-z0-9_./-]+)(?:#[^)]*)?\)`)
	found := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			// A word in capitals is to be replaced.
			if strings.ContainsAny(strings.ReplaceAll(m[1], "README.md", ""), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
				continue
			}
			found++
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
		for _, m := range linked.FindAllStringSubmatch(string(text), -1) {
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d names and links were found", found)
	}
}
