package nixos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
)

// restart cuts the power and switches the machine on again.
func (h *host) restart(t *testing.T) {
	t.Helper()
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := h.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// add makes a system the newest generation, without making it the one that boots.
func (h *host) add(t *testing.T, toplevel string) {
	t.Helper()
	if err := h.InstallClosure(t.Context(), h.builder, toplevel); err != nil {
		t.Fatal(err)
	}
	h.out(t, "nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", toplevel)
}

// expectBoots checks which system runs, and which one is booted next.
func (h *host) expectBoots(t *testing.T, when, runs, next string) {
	t.Helper()
	if got := h.out(t, "readlink", "/run/booted-system"); got != runs {
		t.Errorf("%s: booted %s, want %s", when, got, runs)
	}
	if got, err := h.BootDefault(t.Context()); err != nil || got != next {
		t.Errorf("%s: boots %s next (%v), want %s", when, got, err, next)
	}
}

// loaders are the boot loaders that can try an entry once, and how they are told to.
var loaders = map[string]struct {
	option string
	once   func(h *host, t *testing.T)
}{
	"systemd-boot": {"boot.loader.lab.tryOnce = true;", func(h *host, t *testing.T) {
		h.out(t, "bootctl", "is-installed")
		h.out(t, "bootctl", "set-oneshot", "nixos-generation-2.conf")
	}},
	"grub, by title": {"boot.loader.lab.grub = true;", func(h *host, t *testing.T) {
		title := h.out(t, "sed", "-n", `s/^menuentry "\(NixOS - Configuration 2 ([0-9-]* - .*)\)".*/\1/p`, "/boot/grub/grub.cfg")
		h.out(t, "grub-reboot", "NixOS - All configurations>"+title)
	}},
	"grub, by number": {"boot.loader.lab.grub = true;", func(h *host, t *testing.T) {
		h.out(t, "grub-reboot", "1>0")
	}},
}

func TestALoaderThatCanTriesAnEntryOnce(t *testing.T) {
	t.Parallel()
	for name, loader := range loaders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, lab.Options{})
			first, second := h.build(t, loader.option), h.build(t, loader.option+`environment.etc.second.text = "";`)
			h.install(t, first)
			h.expectBoots(t, "installed", first, first)
			h.add(t, second)
			h.try(t, first+"/bin/switch-to-configuration", "boot").expect(t, 0)
			loader.once(h, t)
			if got, err := h.BootDefault(t.Context()); got != first {
				t.Errorf("the default has become %s (%v)", got, err)
			}
			h.restart(t)
			h.expectBoots(t, "once", second, first)
			h.restart(t)
			h.expectBoots(t, "afterwards", first, first)
			h.try(t, second+"/bin/switch-to-configuration", "boot").expect(t, 0)
			boots := h.Boots()
			h.out(t, "systemctl", "reboot")
			if err := h.WaitReboot(t.Context(), boots); err != nil {
				t.Fatal(err)
			}
			h.expectBoots(t, "for good", second, second)
		})
	}
}

func TestALoaderThatCannotHasNothingToSaySoWith(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, lab.Options{Suite: suite})
			if got := h.try(t, "sh", "-c", "command -v bootctl grub-reboot grub-editenv; ls /boot/loader /boot/grub 2>/dev/null").stdout; got != "" {
				t.Errorf("there is %s", got)
			}
		})
	}
}

func TestTheLoaderIsTheSystems(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	h.install(t, h.build(t, ""))
	for i, option := range []string{"boot.loader.lab.tryOnce = true;", "boot.loader.lab.grub = true;", ""} {
		system := h.build(t, option+fmt.Sprintf("environment.etc.n.text = %q;", fmt.Sprint(i)))
		h.add(t, system)
		h.try(t, system+"/bin/switch-to-configuration", "boot").expect(t, 0)
		h.restart(t)
		h.expectBoots(t, option, system, system)
	}
}

func TestBootctlTellsWhatThereIs(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	const option = "boot.loader.lab.tryOnce = true; boot.kernelParams = [ \"quiet\" ];"
	first := h.build(t, option)
	h.install(t, first)
	second := h.build(t, option+`specialisation.other.configuration.environment.etc.other.text = "";`)
	h.add(t, second)
	h.try(t, second+"/bin/switch-to-configuration", "boot").expect(t, 0)

	type entry struct {
		Type, ID, Path, Root, Title, Version, Options string
		IsDefault, IsSelected                         bool
	}
	var entries []entry
	list := h.out(t, "bootctl", "list", "--json=short", "--no-pager")
	if err := json.Unmarshal([]byte(list), &entries); err != nil || len(entries) != 3 {
		t.Fatalf("%v: %s", err, list)
	}
	for i := range entries {
		if e := &entries[i]; strings.HasPrefix(e.Version, "Generation ") {
			e.Version = ""
		}
	}
	const folder = "/boot/loader/entries/"
	want := []entry{
		{"type1", "nixos-generation-2.conf", folder + "nixos-generation-2.conf", "/boot", "NixOS", "", "init=" + second + "/init quiet", true, false},
		{"type1", "nixos-generation-2-specialisation-other.conf", folder + "nixos-generation-2-specialisation-other.conf", "/boot",
			"NixOS (other)", "", "init=" + h.out(t, "readlink", "-f", second+"/specialisation/other") + "/init quiet", false, false},
		{"type1", "nixos-generation-1.conf", folder + "nixos-generation-1.conf", "/boot", "NixOS", "", "init=" + first + "/init quiet", false, true},
	}
	for i := range want {
		if entries[i] != want[i] {
			t.Errorf("entry %d is %+v, want %+v", i, entries[i], want[i])
		}
	}
	if got := h.out(t, "cat", "/boot/loader/loader.conf"); !strings.Contains("\n"+got, "\ndefault nixos-generation-2.conf\n") {
		t.Errorf("loader.conf: %s", got)
	}
	for _, text := range []string{"(default)", "(selected)", "id: nixos-generation-1.conf"} {
		if got := h.out(t, "bootctl", "list"); !strings.Contains(got, text) {
			t.Errorf("list has no %q: %s", text, got)
		}
	}
	if got := h.out(t, "bootctl", "status"); !strings.Contains(got, "Product: systemd-boot") || !strings.Contains(got, "One-shot entry control") {
		t.Errorf("status: %s", got)
	}
	if got := h.try(t, "bootctl", "set-oneshot", "a/b"); got.status != 1 {
		t.Errorf("a name that is none: %+v", got)
	}

	// A system that is no generation leaves the default where it was.
	h.switchTo(t, h.build(t, option+"environment.etc.x.text = \"\";"), "boot").expect(t, 0)
	if got, err := h.BootDefault(t.Context()); got != second {
		t.Errorf("boots %s (%v), want %s", got, err, second)
	}
}

func TestASystemThatDoesNotComeBackTakesAPowerCut(t *testing.T) {
	t.Parallel()
	const option = "boot.loader.lab.tryOnce = true;"
	for name, c := range map[string]struct {
		more string
		// systemd is what it says of a machine that is on but cannot be reached.
		systemd string
	}{
		"it hangs before sshd":     {`boot.postBootCommands = "sleep infinity";`, "offline"},
		"it boots without network": {`networking.useDHCP = false;`, "running"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, lab.Options{})
			first, lost := h.build(t, option), h.build(t, option+c.more)
			h.install(t, first)
			h.add(t, lost)
			h.try(t, first+"/bin/switch-to-configuration", "boot").expect(t, 0)
			h.out(t, "bootctl", "set-oneshot", "nixos-generation-2.conf")
			boots := h.Boots()
			h.out(t, "systemctl", "reboot")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := h.WaitReboot(ctx, boots); err == nil {
				t.Error("it answers")
			}
			h.expectBoots(t, "lost", lost, first)
			if got := h.try(t, "systemctl", "is-system-running").stdout; got != c.systemd+"\n" {
				t.Errorf("systemd is %s", got)
			}
			h.restart(t)
			h.expectBoots(t, "afterwards", first, first)
			h.expectAnswer(t)
		})
	}
}

func TestASystemThatGoesOffWhileItBootsStaysOff(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	first := h.build(t, "")
	h.install(t, first)
	off := h.build(t, `boot.postBootCommands = "poweroff -f";`)
	h.add(t, off)
	h.try(t, off+"/bin/switch-to-configuration", "boot").expect(t, 0)
	boots := h.Boots()
	h.out(t, "systemctl", "reboot")
	if err := h.WaitReboot(t.Context(), boots); err == nil || !strings.Contains(err.Error(), "went off") {
		t.Errorf("it came back: %v", err)
	}
}
