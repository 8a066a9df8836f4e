package compare

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestTheProgramIsToldByWhatItIsMadeOf has the wrappers that NixOS's releases have, whatever they call themselves.
func TestTheProgramIsToldByWhatItIsMadeOf(t *testing.T) {
	store := toplevel(t, map[string]string{
		"new/bin/switch-to-configuration": "\x7fELF X-NotSocketActivated\x00x-systemd.automount\x00stopping the following user units\x00",
		"mid/bin/switch-to-configuration": "\x7fELF X-NotSocketActivated\x00",
		"new/bin/other":                   "\x7fELF",
	})
	const variables = "export OUT='/o'\nexport TOPLEVEL='/o'\nexport INSTALL_BOOTLOADER='/b'\nexport SYSTEMD='/s'\n"
	wrapped := func(program, more string) map[string]string {
		return map[string]string{
			"bin/switch-to-configuration":          "#! /nix/store/x-bash/bin/bash -e\n" + variables + more + "exec -a \"$0\" \"DIR/bin/.switch-to-configuration-wrapped\"  \"$@\"\n",
			"bin/.switch-to-configuration-wrapped": "-> " + store + "/" + program + "/bin/switch-to-configuration",
		}
	}
	const checks = "export PRE_SWITCH_CHECK='/c'\n"
	for what, c := range map[string]struct {
		files map[string]string
		want  []Program
	}{
		"today's":                      {wrapped("new", checks), []Program{Today}},
		"today's, wrapped by a binary": {map[string]string{"bin/switch-to-configuration": "\x7fELF TOPLEVEL\x00INSTALL_BOOTLOADER\x00SYSTEMD\x00PRE_SWITCH_CHECK\x00" + store + "/new/bin/switch-to-configuration\x00"}, []Program{Today}},
		"one in between":               {wrapped("mid", checks), []Program{Today, Autumn2024}},
		"the first one":                {wrapped("mid", ""), []Program{Autumn2024}},
		"the early one in Perl":        {map[string]string{"bin/switch-to-configuration": "#! /nix/store/x-perl-5.34/bin/perl\nsub fingerprintUnit {\n"}, []Program{Perl}},
		"a later one in Perl":          {map[string]string{"bin/switch-to-configuration": "#! /nix/store/x-perl-5.38-env/bin/perl\nsub compare_units {\n"}, []Program{Autumn2024, Perl}},
		"somebody's own":               {map[string]string{"bin/switch-to-configuration": "#!/bin/sh\n"}, []Program{Today, Autumn2024, Perl}},
		"none":                         {nil, []Program{Today, Autumn2024, Perl}},
	} {
		dir := toplevel(t, nil)
		files := map[string]string{}
		for name, text := range c.files {
			files[name] = strings.ReplaceAll(text, "DIR", dir)
		}
		write(t, dir, files)
		if got := programsOf(dir); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}

// TestWhatMayDifferIsSaidWhereTheProgramIsNotKnown has units about which the programs decide differently.
func TestWhatMayDifferIsSaidWhereTheProgramIsNotKnown(t *testing.T) {
	const path, service = "etc/systemd/system/a.path", "etc/systemd/system/b.service"
	files := func(text, script string) string {
		return toplevel(t, map[string]string{
			path: "[Path]\nA=" + text + "\n", service: "[Service]\nA=" + text + "\n", "bin/switch-to-configuration": script,
			"etc/systemd/user/u.service": "[Service]\nA=" + text + "\n",
		})
	}
	running := &Running{States: map[string]string{"a.path": "active", "b.service": "active"}}
	s, err := Systems(files("1", ""), files("2", "#!/bin/sh\n"), "", running)
	if want := []string{"a.path restarted", "users' u.service left as it is"}; err != nil || s.Program != Today || !reflect.DeepEqual(s.MayDiffer, want) {
		t.Errorf("%v, %q: got %q, want %q", err, s.Program, s.MayDiffer, want)
	}
	// It is the system that comes which brings the program.
	s, err = Systems(files("1", "#!/bin/sh\n"), files("2", "#!/x/perl\nsub fingerprintUnit"), "", running)
	if err != nil || s.Program != Perl || len(s.MayDiffer) != 0 || !s.UserActions.Empty() {
		t.Errorf("%v, %+v", err, s)
	}
	broken := toplevel(t, map[string]string{path: "[Path]\nA=\"2\n", service: "[Service]\nA=\"2\n"})
	if s, err = Systems(files("1", ""), broken, "", running); err != nil || !strings.Contains(s.Refused, "a quote without its partner") || !s.Units.Empty() {
		t.Errorf("%v, %+v", err, s)
	}
}
