package main

import (
	"os"
	"testing"

	"ferry/lab/switchcases"
)

// decide gives what the program does about a case, as the list of cases has it.
func decide(t *testing.T, d dialect, c switchcases.Case) string {
	t.Helper()
	before, after, err := c.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := newPlan()
	pending := c.Pending()
	for verb, into := range map[string]set{"start": p.start, "restart": p.restart, "reload": p.reload} {
		for _, unit := range pending[verb] {
			into[unit] = true
		}
	}
	compare := func(folder string, running map[string]string, p *plan) error {
		states := map[string]unitState{}
		for unit, state := range running {
			states[unit] = unitState{Active: state}
		}
		return (&comparison{dialect: d, old: before + folder, new: after + folder, states: states, home: folder, plan: p,
			fragment: func(unit string) string {
				if from := c.From[unit]; from != "" {
					return from + "/" + unit
				}
				return folder + "/" + unit
			}}).all()
	}
	if err := compare(etcUnits, c.States(), p); err != nil {
		return "status 1"
	}
	entries := []string{}
	for _, device := range p.compareMounts(d, before+"/etc/fstab", after+"/etc/fstab") {
		entries = append(entries, "swapoff "+device)
	}
	if d != perl && isConfiguredAnew(before+"/etc", after+"/etc") {
		entries = append(entries, "reexec systemd")
	}
	entries = append(entries, p.entries("")...)
	if running, err := os.ReadDir(before + userUnits); err == nil && d == today {
		states := map[string]string{}
		for _, unit := range running {
			states[unit.Name()] = "active"
		}
		users := newPlan()
		if err := compare(userUnits, states, users); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, users.entries("user ")...)
	}
	return switchcases.Join(entries)
}

func (p *plan) entries(who string) (entries []string) {
	for verb, units := range map[string]set{"reload": p.reload, "restart": p.restart, "skip": p.skip, "start": p.start, "stop": p.stop} {
		for unit := range units {
			entries = append(entries, who+verb+" "+unit)
		}
	}
	return entries
}

// TestUnitsAreDecidedAboutAsTheProgramsDo has all cases of the list, for each program.
func TestUnitsAreDecidedAboutAsTheProgramsDo(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range switchcases.All() {
		if seen[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			for _, program := range switchcases.Programs() {
				got := decide(t, dialect(program), c)
				t.Logf("did\t%s\t%s\t%s", c.Name, program, got)
				if want := switchcases.Join(switchcases.Split(c.Does[program])); got != want {
					t.Errorf("%s: %q, want %q", program, got, want)
				}
			}
		})
	}
}
