package ferry_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestWhatSafetyNamesIsTested locks that doc/safety.md promises nothing by a test that is not there, and that it has a line for
// every test of integration/safe.
func TestWhatSafetyNamesIsTested(t *testing.T) {
	text, err := os.ReadFile("doc/safety.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile("`Test[A-Za-z0-9]+`").FindAllString(string(text), -1) {
		named[strings.Trim(name, "`")] = true
	}
	there := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	for _, pattern := range []string{"internal/*/*_test.go", "internal/agent/*/*_test.go", "integration/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range function.FindAllStringSubmatch(string(code), -1) {
				there[m[1]] = true
				if filepath.Dir(file) == filepath.Join("integration", "safe") && m[1] != "TestMain" && !named[m[1]] {
					t.Errorf("%s: %s is not in doc/safety.md", file, m[1])
				}
			}
		}
	}
	for name := range named {
		if !there[name] {
			t.Errorf("doc/safety.md names %s, which is no test", name)
		}
	}
	if len(named) < 40 {
		t.Errorf("only %d tests are named", len(named))
	}
}
