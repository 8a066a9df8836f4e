package cli

import (
	"bytes"
	"strings"
	"testing"

	"ferry/internal/examine"
	"ferry/internal/status"
	"ferry/internal/ui"
)

func checkExample() []examine.Finding {
	return []examine.Finding{
		{About: "nix", Text: "Nix 2.18.1"},
		{About: "source", Text: "1.2 MB"},
		{Node: "web", About: "ssh", Text: "alice@web, host web"},
		{Node: "web", About: "units", Attention: status.Warning, Text: "1 unit failed: a.service", Fixes: []string{"on the target: systemctl status a.service"}},
		{Node: "web", About: "lock", Attention: status.Serious, Text: "bob@laptop is deploying to this target\nand more", Fixes: []string{"wait", "or ask " + strings.Repeat("bob ", 20)}},
		{Node: "web", About: "sudo", Text: "takes the password"},
		{Node: "web", About: "trust", Attention: status.Notice, Text: "to be known"},
		{Node: "pi", About: "ssh", Text: "well enough"},
	}
}

// TestCheckShowsWhatIsWrongFirst locks what people see, for each place what is serious before what is well.
func TestCheckShowsWhatIsWrongFirst(t *testing.T) {
	var out bytes.Buffer
	if err := writeCheck(&out, checkExample(), ui.Paint{}); err != nil {
		t.Fatal(err)
	}
	want := `here
  ok: nix (Nix 2.18.1), source (1.2 MB)
web
  error: lock: bob@laptop is deploying to this target; and more
    fix: wait
    fix: or ask bob bob bob bob bob bob bob bob bob bob bob bob bob bob bob bob
         bob bob bob bob
  warning: units: 1 unit failed: a.service
    fix: on the target: systemctl status a.service
  note: trust: to be known
  ok: ssh (alice@web, host web), sudo (takes the password)
pi
  ok: ssh (well enough)
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if got := strings.Join(serious(checkExample()), "; "); got != "web: lock" {
		t.Errorf("serious: %s", got)
	}
}

// TestCheckAsJSONIsWellUnlessSomethingWouldFail has warnings only, and nothing at all.
func TestCheckAsJSONIsWellUnlessSomethingWouldFail(t *testing.T) {
	for want, findings := range map[string][]examine.Finding{
		"{\n  \"well\": true,\n  \"findings\": []\n}\n": nil,
		"{\n  \"well\": true,":                          {{About: "units", Attention: status.Warning, Text: "x"}},
		"{\n  \"well\": false,\n  \"findings\": [\n    {\n      \"node\": \"\",\n      \"about\": \"nix\",\n      \"attention\": \"error\",\n      \"text\": \"x\",\n      \"fixes\": []": {
			{About: "nix", Attention: status.Serious, Text: "x"}},
	} {
		var out bytes.Buffer
		if err := writeCheckJSON(&out, findings); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(out.String(), want) {
			t.Errorf("got %s, want %s", out.String(), want)
		}
	}
}
