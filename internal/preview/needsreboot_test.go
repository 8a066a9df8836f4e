package preview

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/session"
)

const (
	dbusA = "/nix/store/00000000000000000000000000000000-dbus-1.14.10"
	dbusB = "/nix/store/11111111111111111111111111111111-dbus-broker-36"
	dbusC = "/nix/store/22222222222222222222222222222222-dbus-1.14.10"
)

// TestWhatOnlyARebootCanDoIsSaid locks both comparisons in all the forms that NixOS has had.
func TestWhatOnlyARebootCanDoIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		init, inhibitors       string
		newInit, newInhibitors string
		want                   string
	}{
		"nothing":             {"systemd 2", "", "systemd 2", "", ""},
		"equal":               {"systemd 2", `{"dbus":"dbus"}`, "systemd 2", `{"dbus":"dbus"}` + "\n", ""},
		"another init":        {"systemd 2", "", "systemd 3", "", "its init is of another kind than the one that runs (systemd 3, not systemd 2)"},
		"an init of no kind":  {"", "", "systemd 2", "", "its init is of another kind than the one that runs (systemd 2, not none)"},
		"no init to compare":  {"systemd 2", "", "", "", ""},
		"another dbus":        {"s", `{"dbus-implementation":"dbus","systemd":"1"}`, "s", `{"dbus-implementation":"broker","kernel":"6"}`, "dbus-implementation would change from dbus to broker"},
		"by store path":       {"s", `{"dbus":"` + dbusA + `"}`, "s", `{"dbus":"` + dbusB + `"}`, "dbus would change from dbus-1.14.10 to dbus-broker-36"},
		"by its hash only":    {"s", `{"dbus":"` + dbusA + `"}`, "s", `{"dbus":"` + dbusC + `"}`, "dbus would change"},
		"two":                 {"s", `{"b":"1","a":"1"}`, "s", `{"a":"2","b":""}`, "a would change from 1 to 2, b would change from 1 to none"},
		"values of any kind":  {"s", `{"a":[1]}`, "s", `{"a":{"b":2}}`, `a would change from [1] to {"b":2}`},
		"one side":            {"s", "", "s", `{"dbus":"dbus"}`, ""},
		"gone":                {"s", `{"dbus":"dbus"}`, "s", "{}", ""},
		"lists":               {"s", dbusA + "\n", "s", dbusB, "dbus-broker-36 would come, dbus-1.14.10 would go"},
		"equal lists":         {"s", dbusA + "\n" + dbusB, "s", dbusB + "\n" + dbusA + "\n", ""},
		"a list, then names":  {"s", dbusA, "s", `{"dbus":"dbus"}`, ""},
		"an empty list":       {"s", "\n", "s", dbusA, ""},
		"what a target makes": {"s", `{"a\u001b[31m\n":"\u202e1"}`, "s", `{"a\u001b[31m\n":"2"}`, "a? would change from ?1 to 2"},
		"null":                {"s", "null", "s", "null", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := initReason(c.init, c.newInit)
			if got == "" {
				got = inhibitorReason(c.inhibitors, c.newInhibitors)
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestTheToplevelsFilesAreCompared reads them where they are, and leaves what is too long alone.
func TestTheToplevelsFilesAreCompared(t *testing.T) {
	toplevel := nix.StorePath(filepath.Join(t.TempDir(), "toplevel"))
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(string(toplevel), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(string(toplevel), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	facts := agent.Facts{Current: dbusA, InitInterface: "systemd 2", Inhibitors: `{"dbus":"dbus"}`}
	check := func(facts agent.Facts, want string) {
		t.Helper()
		if got := NeedsReboot(facts, toplevel); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check(facts, "")
	write("init-interface-version", "systemd 2")
	check(facts, "")
	write("switch-inhibitors", `{"dbus":"broker"}`)
	check(facts, "dbus would change from dbus to broker")
	check(agent.Facts{}, "")
	same := facts
	same.Current = string(toplevel)
	check(same, "")
	write("switch-inhibitors", `{"dbus":"broker"`+strings.Repeat(" ", session.MaxSystemFile)+"}")
	check(facts, "")
	many := func(value string) string {
		var all []string
		for n := range 8 {
			all = append(all, fmt.Sprintf(`"k%d":"%s"`, n, value))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	facts.Inhibitors = agent.Verbatim(many("1"))
	write("switch-inhibitors", many("1x"))
	if got := NeedsReboot(facts, toplevel); strings.Count(got, "would change") != maxChanges || !strings.HasSuffix(got, ", 3 more") {
		t.Errorf("%q", got)
	}
}

func FuzzInhibitors(f *testing.F) {
	f.Add(`{"dbus":"dbus"}`, `{"dbus":"broker"}`)
	f.Add(dbusA, dbusB)
	f.Fuzz(func(t *testing.T, running, new string) {
		if reason := inhibitorReason(running, new); strings.ContainsAny(reason, "\n\x1b") {
			t.Errorf("%q", reason)
		}
	})
}
