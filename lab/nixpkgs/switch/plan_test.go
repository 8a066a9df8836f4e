package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// world is two folders of units and what runs of the first.
type world struct {
	t        *testing.T
	old, new string
	store    string // equal texts are one file
	states   map[string]unitState
	folder   map[string]string // where systemd has loaded a unit from, if not from the first
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, old: t.TempDir(), new: t.TempDir(), store: t.TempDir(), states: map[string]unitState{}, folder: map[string]string{}}
	return w
}

// write puts a file there; "" for none, "/dev/null" for a mask.
func (w *world) write(folder, name, text string) {
	w.t.Helper()
	file := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	err := error(nil)
	switch text {
	case "":
	case "/dev/null":
		err = os.Symlink("/dev/null", file)
	default:
		stored := filepath.Join(w.store, fmt.Sprintf("%x", sha256.Sum256([]byte(text))))
		err = errors.Join(os.WriteFile(stored, []byte(text), 0o644), os.Symlink(stored, file))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// decide gives the plan as words, sorted: "stop a", "start a", …, or the error.
func (w *world) decide(d dialect) string {
	c := &comparison{dialect: d, old: w.old, new: w.new, states: w.states, home: "/etc/systemd/system", plan: newPlan(),
		fragment: func(unit string) string {
			if folder := w.folder[unit]; folder != "" {
				return folder + "/" + unit
			}
			return "/etc/systemd/system/" + unit
		}}
	if err := c.all(); err != nil {
		return "status 1"
	}
	var words []string
	for _, list := range []struct {
		verb  string
		units set
	}{{"reload", c.plan.reload}, {"restart", c.plan.restart}, {"skip", c.plan.skip}, {"start", c.plan.start}, {"stop", c.plan.stop}} {
		for _, unit := range list.units.sorted() {
			words = append(words, list.verb+" "+unit)
		}
	}
	return strings.Join(words, ", ")
}

const stopStart = "start a.service, stop a.service"

// TestTextsAreComparedAsTheProgramsDo has the cases about one unit's text: what each program does about it while it runs.
func TestTextsAreComparedAsTheProgramsDo(t *testing.T) {
	for name, c := range map[string]struct {
		unit, state, old, new string
		today, autumn         string
	}{
		"1 ExecStart":           {"a.service", "active", "[Service]\nExecStart=/a\n", "[Service]\nExecStart=/b\n", stopStart, stopStart},
		"1 activating":          {"a.service", "activating", "[Service]\nExecStart=/a\n", "[Service]\nExecStart=/b\n", stopStart, stopStart},
		"1 restart trigger":     {"a.service", "active", "[Unit]\nX-Restart-Triggers=1\n", "[Unit]\nX-Restart-Triggers=2\n", stopStart, stopStart},
		"2 failed":              {"a.service", "failed", "[Service]\nExecStart=/a\n", "[Service]\nExecStart=/b\n", "", ""},
		"2 reloading":           {"a.service", "reloading", "[Service]\nExecStart=/a\n", "[Service]\nExecStart=/b\n", "", ""},
		"3 description":         {"a.service", "active", "[Unit]\nDescription=a\nOnFailure=x\n", "[Unit]\nDescription=b\nDocumentation=c\nRefuseManualStop=no\n", "", ""},
		"4 install":             {"a.service", "active", "[Install]\nWantedBy=a\n", "[Install]\nWantedBy=b\n", "", ""},
		"5 reload if changed":   {"a.service", "active", "[Service]\nA=1\nX-ReloadIfChanged=true\n", "[Service]\nA=2\nX-ReloadIfChanged=true\n", "reload a.service", "reload a.service"},
		"5 True is false":       {"a.service", "active", "[Service]\nA=1\nX-ReloadIfChanged=True\n", "[Service]\nA=2\nX-ReloadIfChanged=True\n", stopStart, stopStart},
		"6 restart if changed":  {"a.service", "active", "[Service]\nA=1\n", "[Service]\nA=2\nX-RestartIfChanged=false\n", "skip a.service", "skip a.service"},
		"6 False":               {"a.service", "active", "[Service]\nA=1\n", "[Service]\nA=2\nX-RestartIfChanged=False\n", "skip a.service", "skip a.service"},
		"6 refuse stop":         {"a.service", "active", "[Service]\nA=1\n", "[Unit]\nRefuseManualStop=yes\n[Service]\nA=2\n", "skip a.service", "skip a.service"},
		"6 only manual start":   {"a.service", "active", "[Service]\nA=1\n", "[Unit]\nX-OnlyManualStart=1\n[Service]\nA=1\n", "skip a.service", "skip a.service"},
		"7 stop if changed":     {"a.service", "active", "[Service]\nA=1\nX-StopIfChanged=false\n", "[Service]\nA=2\nX-StopIfChanged=false\n", "restart a.service", "restart a.service"},
		"8 reload trigger":      {"a.service", "active", "[Unit]\nX-Reload-Triggers=1\n", "[Unit]\nX-Reload-Triggers=2\n", "reload a.service", "reload a.service"},
		"8 reload trigger new":  {"a.service", "active", "[Service]\nX-RestartIfChanged=false\n", "[Unit]\nX-Reload-Triggers=1\n[Service]\nX-RestartIfChanged=false\n", "reload a.service", "reload a.service"},
		"9 reload trigger gone": {"a.service", "active", "[Unit]\nX-Reload-Triggers=1\n", "[Service]\n", "", ""},
		"10 in a path":          {"a.path", "active", "[Unit]\nX-Reload-Triggers=1\n", "[Unit]\nX-Reload-Triggers=2\n", "reload a.path", "reload a.path"},
		"11 exec reload":        {"a.service", "active", "[Service]\nExecReload=a\n", "[Service]\nExecReload=b\n", "reload a.service", stopStart},
		"11 exec reload added":  {"a.service", "active", "[Service]\nA=1\n", "[Service]\nA=1\nExecReload=b\n", "reload a.service", stopStart},
		"12 exec reload gone":   {"a.service", "active", "[Service]\nExecReload=a\n", "[Unit]\n", "", stopStart},
		"13 and another added":  {"a.service", "active", "[Service]\n", "[Service]\nA=1\nExecReload=b\n", stopStart, stopStart},
		"13 and another":        {"a.service", "active", "[Service]\nA=1\nExecReload=a\n", "[Service]\nA=2\nExecReload=b\n", stopStart, stopStart},
		"14 comment at the end": {"a.service", "active", "[Service]\nE=A=1 ; one\n", "[Service]\nE=A=1 ; two\n", "", stopStart},
		"14 comment added":      {"a.service", "active", "[Service]\nE=A=1\n", "[Service]\nE=A=1\t# two\n", "", stopStart},
		"14 in a command":       {"a.service", "active", "[Service]\nExecStart=sh -c 'a ; b'\n", "[Service]\nExecStart=sh -c 'a ; c'\n", "", stopStart},
		"15 no comment":         {"a.service", "active", "[Service]\nE=A=1;one\n", "[Service]\nE=A=1;two\n", stopStart, stopStart},
		"16 reset":              {"a.service", "active", "[Service]\nE=x\n", "[Service]\nE=\nE=x\n", "", ""},
		"17 empty":              {"a.service", "active", "[Service]\nA=1\n", "[Service]\nA=1\nE=\n", stopStart, stopStart},
		"17 emptied":            {"a.service", "active", "[Service]\nE=x\n", "[Service]\nE=\n", stopStart, stopStart},
		"19 quote":              {"a.service", "active", "[Service]\nE=\"A=1\"\n", "[Service]\nE=A=1\n", "", ""},
		"19 comments and order": {"a.service", "active", "[Service]\nA=1\nB=2\n", "# x\n[Service]\n\nB=2\n; y\nA=1\n", "", ""},
		"20 open quote":         {"a.service", "active", "[Service]\nA=\"1\n", "[Service]\nA=1\n", "status 1", "status 1"},
		"20 no sign":            {"a.service", "active", "[Service]\nA=1\n", "[Service]\nA=1\nword\n", "status 1", "status 1"},
		"joined lines":          {"a.service", "active", "[Service]\nA=1 \\\n2\n", "[Service]\nA=1 2\n", "", "status 1"},
		"indented comment":      {"a.service", "active", "[Service]\nA=1\n", "[Service]\nA=1\n  # x\nB=1\n", stopStart, "status 1"},
		"glued key":             {"a.service", "active", "[Service]\nA\nB=1\n", "[Service]\nA\nB=2\n", stopStart, stopStart},
		"21 path":               {"a.path", "active", "[Path]\nA=1\n", "[Path]\nA=2\n", "", "restart a.path"},
		"22 slice":              {"a.slice", "active", "[Slice]\nA=1\n", "[Slice]\nA=2\n", "", ""},
		"22 socket":             {"a.socket", "active", "[Socket]\nA=1\n", "[Socket]\nA=2\n", "", ""},
		"23 timer":              {"a.timer", "active", "[Timer]\nA=1\n", "[Timer]\nA=2\n", "restart a.timer", "restart a.timer"},
		"24 mount what":         {"a.mount", "active", "[Mount]\nWhat=1\n", "[Mount]\nWhat=2\n", "restart a.mount", "restart a.mount"},
		"24 nix":                {"nix.mount", "active", "[Mount]\nWhat=1\n", "[Mount]\nWhat=2\n", "reload nix.mount", "reload nix.mount"},
		"24 options":            {"a.mount", "active", "[Mount]\nOptions=1\n", "[Mount]\nOptions=2\n", "reload a.mount", "reload a.mount"},
		"24 options added":      {"a.mount", "active", "[Mount]\nWhat=1\n", "[Mount]\nWhat=1\nOptions=2\n", "restart a.mount", "restart a.mount"},
		"37 gone":               {"a.socket", "active", "[Socket]\n", "", "stop a.socket", "stop a.socket"},
		"37 masked":             {"a.service", "active", "[Service]\n", "/dev/null", "stop a.service", "stop a.service"},
		"38 stays":              {"a.service", "active", "[Unit]\nX-StopOnRemoval=false\n", "", "", ""},
		"42 target":             {"a.target", "active", "[Unit]\n", "[Unit]\nA=1\n", "start a.target", "start a.target"},
		"42 reconfiguration":    {"a.target", "active", "[Unit]\n", "[Unit]\nX-StopOnReconfiguration=true\n", "start a.target, stop a.target", "start a.target, stop a.target"},
		"42 refused":            {"a.target", "active", "[Unit]\n", "[Unit]\nX-StopOnReconfiguration=true\nRefuseManualStart=yes\n", "stop a.target", "stop a.target"},
		"42 only manual":        {"a.target", "active", "[Unit]\n", "[Unit]\nX-OnlyManualStart=true\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.states[c.unit] = unitState{Active: c.state}
			w.write(w.old, c.unit, c.old)
			w.write(w.new, c.unit, c.new)
			if got := w.decide(today); got != c.today {
				t.Errorf("2026: %q, want %q", got, c.today)
			}
			if got := w.decide(autumn2024); got != c.autumn {
				t.Errorf("2024-09: %q, want %q", got, c.autumn)
			}
		})
	}
}

// TestFoldersAreComparedAsTheProgramsDo has the cases of more than one file.
func TestFoldersAreComparedAsTheProgramsDo(t *testing.T) {
	const one, two = "[Service]\nA=1\n", "[Service]\nA=2\n"
	for name, c := range map[string]struct {
		active                string
		old, new              map[string]string
		elsewhere             string
		today, autumn, before string
	}{
		"18 a value moved to a drop-in": {"a.service", map[string]string{"a.service": "[Service]\nE=1\nE=2\n"},
			map[string]string{"a.service": "[Service]\nE=1\n", "a.service.d/x.conf": "[Service]\nE=2\n"}, "", stopStart, stopStart, stopStart},
		"25 service and socket": {"a.service a.socket", map[string]string{"a.service": one, "a.socket": one},
			map[string]string{"a.service": two, "a.socket": one}, "", "start a.socket, stop a.service, stop a.socket",
			"start a.socket, stop a.service, stop a.socket", "start a.socket, stop a.service, stop a.socket"},
		"26 the socket is inactive": {"a.service", map[string]string{"a.service": one, "a.socket": one},
			map[string]string{"a.service": two, "a.socket": one}, "", "stop a.service", stopStart, stopStart},
		"28 the socket is gone": {"a.service a.socket", map[string]string{"a.service": one, "a.socket": one},
			map[string]string{"a.service": two}, "", "start a.service, stop a.service, stop a.socket",
			"start a.service, stop a.service, stop a.socket", "start a.socket, stop a.service, stop a.socket"},
		"29 not socket activated": {"a.service a.socket", map[string]string{"a.service": one, "a.socket": one},
			map[string]string{"a.service": two + "X-NotSocketActivated=true\n", "a.socket": one}, "",
			"start a.service, start a.socket, stop a.service, stop a.socket", "start a.socket, stop a.service, stop a.socket",
			"start a.socket, stop a.service, stop a.socket"},
		"31 template": {"a@x.service", map[string]string{"a@.service": one}, map[string]string{"a@.service": two}, "",
			"start a@x.service, stop a@x.service", "start a@x.service, stop a@x.service", "start a@x.service, stop a@x.service"},
		"33 template gone":            {"a@x.service", map[string]string{"a@.service": one}, nil, "", "stop a@x.service", "stop a@x.service", "stop a@x.service"},
		"34 the drop-in gone":         {"a@x.service a@y.service", map[string]string{"a@.service": one, "a@x.service.d/o.conf": two}, map[string]string{"a@.service": one}, "", "stop a@x.service", "start a@x.service, stop a@x.service", ""},
		"35 the drop-in changed":      {"a@x.service", map[string]string{"a@.service": one, "a@x.service.d/o.conf": two}, map[string]string{"a@.service": one, "a@x.service.d/o.conf": one}, "", "start a@x.service, stop a@x.service", "start a@x.service, stop a@x.service", ""},
		"36 a dot in the instance":    {"a@x.y.service", map[string]string{"a@.service": one}, map[string]string{"a@.service": two}, "", "", "", ""},
		"36 an own file is new":       {"a@y.service", map[string]string{"a@.service": one}, map[string]string{"a@.service": two, "a@y.service": two}, "", "", "", ""},
		"40 only a drop-in is new":    {"a.service", nil, map[string]string{"a.service.d/x.conf": two}, "", "", "", ""},
		"43 loaded from elsewhere":    {"a.service", map[string]string{"a.service": one}, map[string]string{"a.service": two}, "/run/systemd/generator", "", stopStart, stopStart},
		"43 loaded from the controls": {"a.service", map[string]string{"a.service": one}, map[string]string{"a.service": two}, "/etc/systemd/system.control", stopStart, stopStart, stopStart},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for _, unit := range strings.Fields(c.active) {
				w.states[unit] = unitState{Active: "active"}
				w.folder[unit] = c.elsewhere
			}
			for file, text := range c.old {
				w.write(w.old, file, text)
			}
			for file, text := range c.new {
				w.write(w.new, file, text)
			}
			for _, want := range []struct {
				dialect dialect
				plan    string
			}{{today, c.today}, {autumn2024, c.autumn}, {perl, c.before}} {
				if got := w.decide(want.dialect); got != want.plan {
					t.Errorf("%s: %q, want %q", want.dialect, got, want.plan)
				}
			}
		})
	}
}
