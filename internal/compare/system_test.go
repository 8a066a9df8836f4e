package compare

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// toplevel makes a system of files by name; a text "-> PLACE" makes a link.
func toplevel(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, files)
	return dir
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(text, "-> "); link {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// service is a system with one service that multi-user.target starts.
func service(t *testing.T, text string, more ...string) string {
	t.Helper()
	files := map[string]string{"a.service": text, "multi-user.target.wants/a.service": "-> ../a.service"}
	for _, target := range targets {
		files[target] = "[Unit]\nDescription=one of systemd's\n"
	}
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	for name := range files {
		if files[name] == "" {
			delete(files, name)
		}
	}
	placed := map[string]string{}
	for name, text := range files {
		placed["etc/systemd/system/"+name] = text
	}
	return toplevel(t, placed)
}

// targets are in every system.
var targets = []string{"multi-user.target", "sockets.target", "timers.target", "local-fs.target"}

// without is a system without that service.
func without(t *testing.T) string {
	t.Helper()
	return service(t, "", "multi-user.target.wants/a.service", "")
}

// TestUnitsGoByTheRulesOfTheSwitch has a case for each rule of switch-to-configuration.
func TestUnitsGoByTheRulesOfTheSwitch(t *testing.T) {
	const run = "[Service]\nExecStart=one\n"
	const other = "[Service]\nExecStart=two\n"
	const socket = "[Socket]\nListenStream=1\n"
	type units = map[string][]string
	for what, c := range map[string]struct {
		before, after string
		want          units
	}{
		"nothing":               {service(t, run), service(t, run), units{}},
		"another description":   {service(t, "[Unit]\nDescription=a\n"+run), service(t, "[Unit]\nDescription=b\n# x\n\n"+run), units{}},
		"another program":       {service(t, run), service(t, other), units{"restart": {"a.service"}}},
		"an addition":           {service(t, run), service(t, run, "a.service.d/overrides.conf", "[Service]\nNice=1\n"), units{"restart": {"a.service"}}},
		"restart only":          {service(t, run), service(t, other+"X-StopIfChanged=false\n"), units{"restart": {"a.service"}}},
		"reload if changed":     {service(t, run), service(t, other+"X-ReloadIfChanged=true\n"), units{"reload": {"a.service"}}},
		"a reload trigger":      {service(t, "[Unit]\nX-Reload-Triggers=1\n"+run), service(t, "[Unit]\nX-Reload-Triggers=2\n"+run), units{"reload": {"a.service"}}},
		"not if changed":        {service(t, run), service(t, other+"X-RestartIfChanged=false\n"), units{"skip": {"a.service"}}},
		"refuses to be stopped": {service(t, run), service(t, "[Unit]\nRefuseManualStop=yes\n"+other), units{"skip": {"a.service"}}},
		"gone":                  {service(t, run), without(t), units{"stop": {"a.service"}}},
		"gone, and stays":       {service(t, "[Unit]\nX-StopOnRemoval=false\n"+run), without(t), units{}},
		"masked":                {service(t, run), service(t, "-> /dev/null"), units{"stop": {"a.service"}}},
		"new":                   {without(t), service(t, run), units{"start": {"a.service"}}},
		"wanted only now":       {service(t, run, "multi-user.target.wants/a.service", ""), service(t, run), units{"start": {"a.service"}}},
		"new, wanted by none":   {without(t), service(t, run, "multi-user.target.wants/a.service", ""), units{}},
		"does not run":          {service(t, run, "multi-user.target.wants/a.service", ""), service(t, other, "multi-user.target.wants/a.service", ""), units{"idle": {"a.service"}}},
		"runs for a moment":     {service(t, run+"Type=oneshot\n"), service(t, other+"Type=oneshot\n"), units{"start": {"a.service"}}},
		"has run":               {service(t, run+"Type=oneshot\nRemainAfterExit=yes\n"), service(t, other+"Type=oneshot\nRemainAfterExit=yes\n"), units{"restart": {"a.service"}}},
		"with its socket": {
			service(t, run, "a.socket", socket, "sockets.target.wants/a.socket", "-> ../a.socket"),
			service(t, other, "a.socket", socket, "sockets.target.wants/a.socket", "-> ../a.socket"),
			units{"restart": {"a.service", "a.socket"}},
		},
		"only the socket": {
			service(t, run, "a.socket", socket, "sockets.target.wants/a.socket", "-> ../a.socket"),
			service(t, run, "a.socket", "[Socket]\nListenStream=2\n", "sockets.target.wants/a.socket", "-> ../a.socket"),
			units{"left": {"a.socket"}},
		},
		"a timer": {
			service(t, run, "b.timer", "[Timer]\nOnCalendar=daily\n", "timers.target.wants/b.timer", "-> ../b.timer"),
			service(t, run, "b.timer", "[Timer]\nOnCalendar=hourly\n", "timers.target.wants/b.timer", "-> ../b.timer"),
			units{"restart": {"b.timer"}},
		},
		"an instance": {
			service(t, run, "c@.service", run, "multi-user.target.wants/c@1.service", "-> ../c@.service"),
			service(t, run, "c@.service", other, "multi-user.target.wants/c@1.service", "-> ../c@.service"),
			units{"restart": {"c@1.service"}},
		},
		"the options of a mount": {
			service(t, run, "d.mount", "[Mount]\nWhat=x\nOptions=ro\n", "local-fs.target.requires/d.mount", "-> ../d.mount"),
			service(t, run, "d.mount", "[Mount]\nWhat=x\nOptions=rw\n", "local-fs.target.requires/d.mount", "-> ../d.mount"),
			units{"reload": {"d.mount"}},
		},
		"a second name": {service(t, run, "b.service", "-> a.service"), service(t, other, "b.service", "-> a.service"), units{"restart": {"a.service"}}},
	} {
		s, err := Systems(c.before, c.after, "", nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := units{}
		lists := units{
			"stop": s.Units.Stop, "restart": s.Units.Restart, "reload": s.Units.Reload, "start": s.Units.Start, "skip": s.Units.Skip, "left": s.Units.Left, "idle": s.Units.Idle,
		}
		for list, names := range lists {
			if len(names) > 0 {
				got[list] = names
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", what, got, c.want)
		}
		if s.Units.Empty() != (len(c.want) == 0) {
			t.Errorf("%s: empty is wrong", what)
		}
	}
}

// TestUnitsGoByWhatRunsWhereThatIsKnown has a unit that was stopped by hand, and one that was started so.
func TestUnitsGoByWhatRunsWhereThatIsKnown(t *testing.T) {
	before := service(t, "[Service]\nExecStart=1\n", "b.service", "[Service]\nExecStart=1\n")
	after := service(t, "[Service]\nExecStart=2\n", "b.service", "[Service]\nExecStart=2\n")
	s, err := Systems(before, after, "", &Running{States: map[string]string{"b.service": "active", "multi-user.target": "active"}})
	if err != nil || !reflect.DeepEqual(s.Units.Restart, []string{"b.service"}) || !reflect.DeepEqual(s.Units.Start, []string{"a.service"}) {
		t.Errorf("%+v, %v", s.Units, err)
	}
}

// TestSystemsSayWhatElseComesAndGoes compares files of /etc, accounts and what is booted.
func TestSystemsSayWhatElseComesAndGoes(t *testing.T) {
	store := toplevel(t, map[string]string{
		"1-users-groups.json": `{"users": [{"name": "alice", "shell": "a"}, {"name": "bob"}], "groups": [{"name": "wheel", "members": []}]}`,
		"2-users-groups.json": `{"users": [{"name": "alice", "shell": "b"}, {"name": "eve"}], "groups": [{"name": "wheel", "members": []}]}`,
		"one":                 "text", "same": "text", "two": "other",
	})
	before := toplevel(t, map[string]string{
		"activate": "perl x.pl " + store + "/1-users-groups.json\n", "etc/gone": "x", "etc/same": "-> " + store + "/one", "etc/changed": "-> " + store + "/one",
		"etc/copied": "x", "etc/copied.mode": "0440", "etc/mtab": "-> /proc/nowhere/mounts",
		"etc/fstab":                  "# a comment\n/dev/a / ext4\n/dev/b /my\\040data ext4 ro 0 2\n/dev/c /old xfs defaults 0 0\n/dev/d none swap\n/dev/e /nix ext4 ro\n/dev/f /same ext4 ro 0 0\n",
		"etc/systemd/user/a.service": "[Service]\nExecStart=1\n", "etc/systemd/user/b.timer": "[Timer]\nOnCalendar=daily\n", "etc/systemd/user/same.service": "[Service]\nExecStart=1\n",
		"kernel": "-> /nix/store/" + strings.Repeat("a", 32) + "-linux-6.1.1/bzImage", "kernel-params": "a b\n", "initrd": "-> /x",
	})
	after := toplevel(t, map[string]string{
		"activate": "perl x.pl " + store + "/2-users-groups.json\n", "etc/new/file": "x", "etc/same": "-> " + store + "/same", "etc/changed": "-> " + store + "/two",
		"etc/copied": "x", "etc/copied.mode": "0444", "etc/mtab": "-> /proc/nowhere/mounts", "etc/systemd/system/x.target": "[Unit]\n",
		"etc/fstab":                  "/dev/other / ext4 defaults 0 1\n/dev/b /my\\040data ext4 rw 0 2\n/dev/n /new xfs\n/dev/m none swap sw\n/dev/e /nix ext4 rw\n/dev/f /same ext4 ro 0 2\n",
		"etc/systemd/user/a.service": "[Service]\nExecStart=2\n", "etc/systemd/user/c.socket": "[Socket]\nListenStream=1\n", "etc/systemd/user/same.service": "[Service]\nExecStart=1\n",
		"kernel": "-> /nix/store/" + strings.Repeat("a", 32) + "-linux-6.1.2/bzImage", "kernel-params": "a c\n", "initrd": "-> /x",
	})
	s, err := Systems(before, after, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ got, want any }{
		"etc":        {s.Etc, Names{[]string{"new/file"}, []string{"gone"}, []string{"changed", "fstab"}}},
		"mounts":     {s.Mounts, Names{[]string{"/new", "swap /dev/m"}, []string{"/old", "swap /dev/d"}, []string{"/", "/my data", "/nix"}}},
		"user units": {s.UserUnits, Names{[]string{"c.socket"}, []string{"b.timer"}, []string{"a.service"}}},
		"users":      {s.Users, Names{[]string{"eve"}, []string{"bob"}, []string{"alice"}}},
		"groups":     {s.Groups, Names{[]string{}, []string{}, []string{}}},
		"boot":       {s.Boot, []string{"kernel (6.1.1 to 6.1.2)", "kernel parameters", "the mount of /"}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", what, c.got, c.want)
		}
	}
	if s, err = Systems(before, after, after, nil); err != nil || len(s.Boot) != 0 {
		t.Errorf("with the new one booted: %v, %v", s.Boot, err)
	}
	if _, err := Systems(before, t.TempDir(), "", nil); err == nil {
		t.Error("a folder that is no system is one")
	}
}
