package nixos_test

import (
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestUsersAreMergedAsNixOSDoes goes through what happens to users who were there by hand, and to those whom a system leaves out.
func TestUsersAreMergedAsNixOSDoes(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	shadow := func(user string) string {
		return strings.SplitN(h.try(t, "getent", "shadow", user).stdout, ":", 3)[1]
	}
	none, hand := h.build(t, ""), shadow("alice")
	h.switchTo(t, none, "test").expect(t, 0)
	h.switchTo(t, h.build(t, `users.users.alice = { isNormalUser = true; hashedPassword = "$6$other"; extraGroups = [ "wheel" ]; };`), "test").expect(t, 0)
	for command, want := range map[string]string{
		"id -Gn alice":                                      "users sudo wheel",
		"cat /var/lib/nixos/declarative-users":              "alice root",
		"grep -o '\"alice\":[0-9]*' /var/lib/nixos/uid-map": `"alice":1000`,
		"cut -d : -f 1 /etc/subuid":                         "alice",
		"stat -c %a:%U:%G /etc/shadow":                      "640:root:shadow",
	} {
		if got := h.out(t, "sh", "-c", command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	if got := shadow("alice"); got != hand {
		t.Errorf("the password of a user who was there is %q", got)
	}
	h.switchTo(t, none, "test").expect(t, 0)
	if h.try(t, "getent", "passwd", "alice").stdout != "" {
		t.Error("a user who was declared is still there")
	}
	again := h.build(t, `users.users.alice.isNormalUser = true;`)
	h.switchTo(t, again, "test").expect(t, 0)
	if got := shadow("alice"); got != "!" {
		t.Errorf("a user who comes back has the password %q", got)
	}
	if got := h.out(t, "id", "-u", "alice"); got != "1000" {
		t.Errorf("a user who comes back has the number %s", got)
	}
	h.switchTo(t, h.build(t, `users.mutableUsers = false; users.users.alice.isNormalUser = true; users.users.bob = {
		isNormalUser = true; hashedPassword = "$6$declared"; };`), "test").expect(t, 0)
	for user, want := range map[string]string{"alice": "!", "bob": "$6$declared"} {
		if got := shadow(user); got != want {
			t.Errorf("%s, who is not mutable, has the password %q", user, got)
		}
	}
}
