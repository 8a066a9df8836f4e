package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/status"
	"ferry/internal/ui"
)

func statusExample() []status.Node {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	well := status.Node{
		Node: inventory.Node{Name: "web1"}, Revision: strings.Repeat("a", 40), Standing: inventory.Standing{Relation: inventory.Behind, Behind: 12},
		Deployed: &agent.JournalEntry{Time: now.Add(-50 * time.Hour), Who: "bob@laptop"}, Attention: status.Notice,
		Release: "25.05", NixpkgsRevision: strings.Repeat("b", 40), NixpkgsDate: now.AddDate(0, -5, -2),
		Facts: agent.Facts{Time: now.Unix(), StoreFree: 12e9, BootFree: 340e6},
	}
	failed := well
	failed.Node.Name, failed.Dirty, failed.Attention, failed.Standing = "database", true, status.Serious, inventory.Standing{Relation: inventory.Equal}
	failed.Points = []status.Point{
		{Attention: status.Serious, Text: "2 units failed: one.service, two.service"},
		{Attention: status.Warning, Text: "reboot needed: kernel changed since the boot; " + strings.Repeat("and more ", 10)},
	}
	return []status.Node{
		{Node: inventory.Node{Name: "away"}, Err: errors.New("gone"), Attention: status.Serious, Points: []status.Point{{Attention: status.Serious, Text: "gone"}}},
		failed, well,
	}
}

// TestStatusIsATable locks what people see.
func TestStatusIsATable(t *testing.T) {
	var out bytes.Buffer
	if err := writeStatus(&out, statusExample(), ui.Paint{}); err != nil {
		t.Fatal(err)
	}
	want := `NODE      NIXOS  NIXPKGS       REVISION           DEPLOYED          /NIX   /BOOT
away      -      -             -                  -                    -       -
  error: gone
database  25.05  bbbbbbb 5 mo  aaaaaaa+ equal     2 d, bob@laptop  12 GB  340 MB
  error: 2 units failed: one.service, two.service
  warning: reboot needed: kernel changed since the boot; and more and more and
           more and more and more and more and more and more and more and more
web1      25.05  bbbbbbb 5 mo  aaaaaaa behind 12  2 d, bob@laptop  12 GB  340 MB
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// TestTheTableOfStatusFitsEightyColumns has the widest that every column can be.
func TestTheTableOfStatusFitsEightyColumns(t *testing.T) {
	list := statusExample()
	n := &list[1]
	n.Node.Name, n.Release, n.Deployed.Who = strings.Repeat("n", 128), strings.Repeat("ü", 200), strings.Repeat("w", 200)
	n.Standing = inventory.Standing{Relation: inventory.Behind, Behind: 12345}
	n.Facts.StoreFree, n.Facts.BootFree = 999e9, 999e6
	var out bytes.Buffer
	if err := writeStatus(&out, list, ui.Paint{}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// TestStatusAsJSONSaysWhatIsNotKnown with empty values of the right type, so that jq can go on.
func TestStatusAsJSONSaysWhatIsNotKnown(t *testing.T) {
	var out bytes.Buffer
	if err := writeStatusJSON(&out, statusExample()[:1]); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"reached": false`, `"error": "gone"`, `"attention": "error"`, `"relation": ""`, `"deployed": null`, `"armed": null`, `"lock": null`,
		`"failed": []`, `"failed_known": false`, `"reboot": []`, `"nixpkgs_date": ""`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
}

func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Hour: "now", 59 * time.Second: "now", time.Minute: "1 min", 47 * time.Hour: "47 h", 48 * time.Hour: "2 d", 59 * day: "59 d",
		61 * day: "2 mo", 729 * day: "23 mo", 800 * day: "2 y",
	} {
		if got := age(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// TestWrapKeepsLongWordsWhole because a person copies them.
func TestWrapKeepsLongWordsWhole(t *testing.T) {
	long := strings.Repeat("x", 100)
	got := wrapBehind("  - ", "a "+long+" b")
	want := []string{"  - a", "    " + long, "    b"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q", got)
	}
	if got := wrapBehind("fix: ", ""); len(got) != 1 || got[0] != "fix:" {
		t.Errorf("%q", got)
	}
}
