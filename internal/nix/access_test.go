package nix

import (
	"errors"
	"strings"
	"testing"
)

// TestAStoreOutOfReachIsExplained has the messages of a Nix 2.8 of Debian, as a user sees them who has just installed it.
func TestAStoreOutOfReachIsExplained(t *testing.T) {
	for message, want := range map[string]string{
		"error: getting status of /nix/var/nix/daemon-socket/socket: Permission denied":                            "may not talk",
		"error: cannot connect to socket at '/nix/var/nix/daemon-socket/socket': Connection refused":               "does not run",
		"error: creating directory '/nix/var': Permission denied":                                                  "only root",
		"error: could not set permissions on '/nix/var/nix/profiles/per-user' to 755: Operation not permitted":     "only root",
		"warning: something else\nerror: getting status of /nix/var/nix/daemon-socket/socket: Permission denied\n": "may not talk",
	} {
		useFakeNix(t, "", message, 1)
		c := new(Client)
		drv := StorePath("/nix/store/" + someHash + "-a.drv")
		for what, call := range map[string]func() error{
			"add":   func() error { _, err := c.Add(t.Context(), "/etc/hostname"); return err },
			"eval":  func() error { _, err := c.Eval(t.Context(), Expression{Text: "1"}); return err },
			"build": func() error { return c.Build(t.Context(), drv, t.TempDir()+"/root", nil) },
		} {
			var access *AccessError
			if err := call(); !errors.As(err, &access) || !strings.Contains(access.Reason, want) || access.Advice == "" {
				t.Errorf("%s: %s: %v", what, message, err)
			}
		}
	}
	useFakeNix(t, "", "error: getting status of /home/ann/x: Permission denied", 1)
	_, err := new(Client).Add(t.Context(), "/etc/hostname")
	var access *AccessError
	if err == nil || errors.As(err, &access) {
		t.Errorf("another file: %v", err)
	}
}
