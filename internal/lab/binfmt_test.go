package lab

import (
	"slices"
	"testing"
)

func TestARuleOfBinfmtIsReadWithItsMagic(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		conf string
		want []string // nil for an error
	}{
		"as Debian writes it": {
			`:qemu-aarch64:M::\x7fELF\xb7:\xff:/usr/libexec/qemu-binfmt/aarch64-binfmt-P:OPF` + "\n",
			[]string{"", "qemu-aarch64", "M", "", `\x7fELF\xb7`, `\xff`, "/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "OPF"},
		},
		"comments, another separator, no F": {
			"# a comment\n\n;another\n|x|M||a|b|/bin/x|O\n",
			[]string{"", "x", "M", "", "a", "b", "/bin/x", "OF"},
		},
		"nothing":   {"# a comment\n", nil},
		"too short": {":x:M:\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseBinfmt(test.conf)
			if !slices.Equal(got, test.want) || (err == nil) != (test.want != nil) {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}
