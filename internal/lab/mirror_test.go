package lab

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheMirrorIsTheOneThatAptUses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"one line": {map[string]string{
			"sources.list": "# deb http://old.example/debian x main\ndeb http://mirror.example/debian bookworm main contrib\n",
		}, "http://mirror.example/debian"},
		"options and a slash": {map[string]string{
			"sources.list": "deb [arch=amd64 signed-by=/usr/share/k.gpg] https://mirror.example/debian/ bookworm main\n",
		}, "https://mirror.example/debian/"},
		"security first": {map[string]string{
			"sources.list": "deb http://security.example/debian-security bookworm-security main\ndeb http://mirror.example/debian bookworm main\n",
		}, "http://mirror.example/debian"},
		"paragraphs": {map[string]string{
			"sources.list.d/debian.sources": "Types: deb\n# URIs: http://old.example/debian\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n",
		}, "http://mirror.example/debian"},
		"other vendors": {map[string]string{
			"sources.list.d/a.list":    "deb https://vendor.example/apt stable main\n",
			"sources.list.d/b.sources": "Types: deb\nURIs: https://vendor.example/node\nSuites: x\nComponents: main\n",
		}, ""},
		"sources of source code only": {map[string]string{
			"sources.list":             "deb-src http://mirror.example/debian bookworm main\n",
			"sources.list.d/b.sources": "Types: deb-src\nURIs: http://mirror.example/debian\nSuites: x\nComponents: main\n",
		}, ""},
		"nothing": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			for file, text := range test.files {
				path := filepath.Join(etc, "apt", file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := hostMirror(etc); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
