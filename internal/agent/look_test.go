package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzLook reads what a hostile agent may say of its target, and of what it remembers: all of it is shown to people.
func FuzzLook(f *testing.F) {
	f.Add([]byte(`{"look":{"failed":["a.service","\u001b[2J"],"units_error":"\u0007","lock":{"who":"bob\u001b[31m","bundle":"/etc"},` +
		`"armed":{"toplevel":"/tmp","who":"\r","phase":"\u009b","left":-5},"reboot":["kernel","b","c","d","e"],"nixpkgs_revision":"--exec",` +
		`"roots":[{"text":"\u202e","fix":"\n"}],"boot_files":["a","b","c"]}}`))
	f.Add([]byte(`{"history":{"entries":[{"id":"\u001b","who":"\u001b","outcome":"\u001b","reason":"\u001b","revision":"x"}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r Response
		if decode(text, &r) != nil {
			return
		}
		if r.Look != nil {
			if len(r.Look.Failed) > MaxFailed || len(r.Look.Reboot) > len(RebootFiles) || len(r.Look.BootFiles) > len(BootFiles) {
				t.Errorf("%+v", r.Look)
			}
			if a := r.Look.Armed; a != nil && (a.Left < 0 || a.Toplevel != "" && !strings.HasPrefix(a.Toplevel, "/nix/store/")) {
				t.Errorf("%+v", a)
			}
			isVisible(t, *r.Look)
		}
		if r.History != nil {
			if len(r.History.Entries) > MaxHistory {
				t.Errorf("%d entries", len(r.History.Entries))
			}
			isVisible(t, *r.History)
		}
	})
}

// isVisible fails the test if something in v would move a cursor.
func isVisible(t *testing.T, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if strings.ContainsAny(v, "\x1b\r\n\a\u009b\u202e") || !utf8.ValidString(v) {
				t.Errorf("%q", v)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(plain)
}
