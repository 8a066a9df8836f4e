package nixos_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"ferry/internal/lab"
)

func TestUsersAreTheSystems(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	const user = `users.groups.app = { };
		users.users.eve = { isNormalUser = true; uid = 1234; extraGroups = [ "wheel" "app" ]; initialPassword = "pass word";
			description = "Eve, of course"; openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAA eve" ]; };
		users.users.app = { isSystemUser = true; group = "app"; };
		security.sudo.wheelNeedsPassword = false;`
	h.switchTo(t, h.build(t, user), "test").expect(t, 0)
	for command, want := range map[string]string{
		"getent passwd eve":                  "eve:x:1234:100:Eve, of course:/home/eve:/bin/bash",
		"id -Gn eve | tr ' ' '\\n' | sort":   "app\nusers\nwheel",
		"stat -c %a:%U /home/eve":            "700:eve",
		"cat /etc/ssh/authorized_keys.d/eve": "ssh-ed25519 AAAA eve",
		"id -gn app":                         "app",
		"su - eve -c 'sudo -n id -u'":        "0",
	} {
		if got := h.out(t, "sh", "-c", command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	hash := h.out(t, "getent", "shadow", "eve")
	if !strings.HasPrefix(hash, "eve:$") {
		t.Errorf("no password: %s", hash)
	}
	h.switchTo(t, h.build(t, strings.ReplaceAll(user, "pass word", "other")), "test").expect(t, 0)
	if h.out(t, "getent", "shadow", "eve") != hash {
		t.Error("the password of a user that was there has changed")
	}
	h.switchTo(t, h.build(t, ""), "test").expect(t, 0)
	if got := h.try(t, "getent", "passwd", "eve", "app"); got.stdout != "" {
		t.Errorf("still there: %s", got.stdout)
	}
	if h.try(t, "getent", "passwd", "alice").status != 0 {
		t.Error("a user that no system declared is gone")
	}
}

func TestAUserWhoComesBackHasTheirNumber(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	const eve = `users.users.eve.isNormalUser = true;`
	old := h.build(t, eve)
	h.switchTo(t, old, "test").expect(t, 0)
	uid := h.out(t, "id", "-u", "eve")
	h.switchTo(t, h.build(t, `users.users.mallory.isNormalUser = true;`), "test").expect(t, 0)
	h.switchTo(t, old, "test").expect(t, 0)
	if got := h.out(t, "id", "-u", "eve"); got != uid {
		t.Errorf("eve has the number %s, and had %s", got, uid)
	}
	if got := h.out(t, "stat", "-c", "%U", "/home/eve"); got != "eve" {
		t.Errorf("her home is %s's", got)
	}
}

func TestUsersWhoAreNotMutableAreTheOnlyOnes(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	h.switchTo(t, h.build(t, `users.mutableUsers = false; users.users.alice = { isNormalUser = true; uid = 1000; };`), "test").expect(t, 0)
	if got := h.out(t, "sh", "-c", "getent passwd alice bob root sshd | cut -d : -f 1 | tr '\\n' ' '"); got != "alice root sshd" {
		t.Errorf("there are %q", got)
	}
}

// TestAToplevelTellsWhoMayLogIn has what a toplevel of NixOS has, for who asks without running it.
func TestAToplevelTellsWhoMayLogIn(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	toplevel := h.build(t, `services.openssh = { ports = [ 2222 ]; settings = { PermitRootLogin = "no"; PasswordAuthentication = false;
			AllowUsers = [ "alice" "bob" ]; }; extraConfig = "MaxAuthTries 9"; };
		users.users.alice = { isNormalUser = true; extraGroups = [ "wheel" ]; shell = pkgs.bash;
			openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAA alice" ]; };
		users.users.app = { isSystemUser = true; group = "app"; };
		users.groups.app.members = [ "alice" ];
		security.sudo = { wheelNeedsPassword = false; extraConfig = "Defaults lecture=never";
			extraRules = [ { users = [ "bob" ]; groups = [ "app" ]; commands = [ { command = "/bin/true"; options = [ "NOPASSWD" ]; } "/bin/id" ]; } ]; };`)
	read := func(name string) string {
		text, err := h.builder.Output(t.Context(), "cat", toplevel+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, lines := range map[string][]string{
		"etc/ssh/sshd_config": {"PermitRootLogin no", "PasswordAuthentication no", "UsePAM yes", "AllowUsers alice bob", "Port 2222",
			"AuthorizedKeysFile %h/.ssh/authorized_keys /etc/ssh/authorized_keys.d/%u", "MaxAuthTries 9"},
		"etc/ssh/authorized_keys.d/alice": {"ssh-ed25519 AAAA alice"},
		"etc/sudoers": {"root     ALL=(ALL:ALL)    SETENV: ALL", "%wheel     ALL=(ALL:ALL)    NOPASSWD:SETENV: ALL",
			"bob     ALL=(ALL:ALL)    NOPASSWD: /bin/true, /bin/id", "%app     ALL=(ALL:ALL)    NOPASSWD: /bin/true, /bin/id",
			"Defaults lecture=never"},
		"etc/systemd/system/multi-user.target.wants/sshd.service": {"[Service]"},
	} {
		text := "\n" + read(name)
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("%s lacks %q:%s", name, line, text)
			}
		}
	}

	_, after, _ := strings.Cut(read("activate"), "Activation script snippet users:")
	var spec string
	for _, word := range strings.Fields(after) {
		if strings.HasSuffix(word, "-users-groups.json") {
			spec = word
			break
		}
	}
	text, err := h.builder.Output(t.Context(), "cat", spec)
	if err != nil {
		t.Fatal(err)
	}
	var has struct {
		MutableUsers bool
		Users        []struct {
			Name, Group, Shell string
			UID                *int
			IsSystemUser       bool
		}
		Groups []struct {
			Name    string
			GID     *int
			Members []string
		}
	}
	if err := json.Unmarshal(text, &has); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range has.Users {
		got = append(got, fmt.Sprint(u.Name, " ", u.Group, " ", u.UID != nil, " ", u.IsSystemUser, " ", u.Shell[strings.LastIndex(u.Shell, "/")+1:]))
	}
	for _, g := range has.Groups {
		got = append(got, fmt.Sprint(g.Name, g.Members))
	}
	want := "alice users false false bash|app app false true |root root true false |app[alice]|root[]|users[]|wheel[alice]"
	if !has.MutableUsers || strings.Join(got, "|") != want {
		t.Errorf("the list of users is %s, want %s", strings.Join(got, "|"), want)
	}
}

// login is how a login from another machine ends: "" if it works, else what ssh says.
func (h *host) login(t *testing.T, user string, more ...string) string {
	t.Helper()
	if err := h.builder.Know(h.Target); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR"}, more...)
	out, err := h.builder.Command(t.Context(), "ssh", append(argv, user+"@"+h.Name(), "true")...).CombinedOutput()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func TestWhoMayLogInIsTheSystems(t *testing.T) {
	t.Parallel()
	h := newHostOf(t, lab.Options{}, "script")
	key, err := h.builder.Output(t.Context(), "ssh-keygen", "-y", "-f", "/root/.ssh/id_ed25519")
	if err != nil {
		t.Fatal(err)
	}
	const denied = "Permission denied"
	alice := fmt.Sprintf("users.users.alice = { isNormalUser = true; openssh.authorizedKeys.keys = [ %q ]; };", strings.TrimSpace(string(key)))
	cases := map[string]struct {
		config, alice, root string
		port                string
	}{
		"as it is":               {"", "", "", "22"},
		"root may not":           {`services.openssh.settings.PermitRootLogin = "no";`, "", denied, "22"},
		"only bob may":           {`services.openssh.settings.AllowUsers = [ "bob" ];`, denied, denied, "22"},
		"with a user of its own": {"services.openssh.authorizedKeysInHomedir = false;" + alice, "", denied, "22"},
		"no key of its own":      {"services.openssh.authorizedKeysInHomedir = false;", denied, denied, "22"},
		"by the last lines":      {`services.openssh.extraConfig = "DenyUsers alice";`, denied, "", "22"},
		"elsewhere":              {"services.openssh.ports = [ 2022 ];", "", "", "2022"},
		"when needed":            {"services.openssh.startWhenNeeded = true;", "", "", "22"},
	}
	// In this order: the system with a user of its own takes that away again in the end.
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		c := cases[name]
		t.Run(name, func(t *testing.T) {
			h.switchTo(t, h.build(t, c.config), "test").expect(t, 0)
			for user, want := range map[string]string{"alice": c.alice, "root": c.root} {
				if got := h.login(t, user, "-p", c.port, "-o", "HostKeyAlias="+h.Name()); (got == "") != (want == "") || !strings.Contains(got, want) {
					t.Errorf("%s: %q, want %q", user, got, want)
				}
			}
		})
		h.switchTo(t, h.build(t, ""), "test").expect(t, 0)
	}
}

func TestWhoMayBecomeRootIsTheSystems(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	h.out(t, "usermod", "--append", "--groups", "wheel", "carol")
	may := func(user string) bool { return h.try(t, "su", "-", user, "-c", "sudo -n id -u").stdout == "0\n" }
	for _, step := range []struct {
		name, config string
		bob, carol   bool
	}{
		{"as it is", "", true, false},
		{"wheel", "security.sudo.wheelNeedsPassword = false;", true, true},
		{"against the machine's own", `security.sudo.extraRules = [ { users = [ "bob" ]; commands = [ "/bin/true" ]; }
			{ users = [ "carol" ]; commands = [ { command = "ALL"; options = [ "NOPASSWD" ]; } ]; } ];`, true, true},
		{"no sudo", "security.sudo.enable = false;", false, false},
		{"as it was", "", true, false},
	} {
		h.switchTo(t, h.build(t, step.config), "test").expect(t, 0)
		if got := may("bob"); got != step.bob {
			t.Errorf("%s: bob may: %v, want %v", step.name, got, step.bob)
		}
		if got := may("carol"); got != step.carol {
			t.Errorf("%s: carol may: %v, want %v", step.name, got, step.carol)
		}
	}
}

func TestSSHIsTheSystems(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	listens := func() string { return h.out(t, "sh", "-c", "ss -Hltn4 | awk '{ print $4 }' | sort | tr '\\n' ' '") }
	h.switchTo(t, h.build(t, "services.openssh.ports = [ 22 2222 ];"), "test").
		expect(t, 0, "restarting the following units: sshd.service\n")
	if got := listens(); got != "0.0.0.0:22 0.0.0.0:2222" {
		t.Errorf("listens on %s", got)
	}
	h.switchTo(t, h.build(t, "imports = [ { services.openssh.enable = false; } ];"), "test").
		expect(t, 0, "stopping the following units: sshd.service\n")
	if got := listens(); got != "" {
		t.Errorf("listens on %s", got)
	}
	h.switchTo(t, h.build(t, ""), "test").expect(t, 0, "the following new units were started: sshd.service\n")
}
