package deploy_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/integration/site"
)

// TestThePasswordIsNowhereWhileFerryRuns looks into the command line and environment of every process, and into files and
// logs on both ends, while a deployment stands in the middle of its activation and after it.
func TestThePasswordIsNowhereWhileFerryRuns(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Alone: true})
	secret := "hunted-" + rand.Text()
	setPassword(s, "alice", secret)
	file := filepath.Join(s.Builder.Home(), "secret")
	if err := s.Builder.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := startHunt(secret)
	for way, flags := range map[string][]string{
		"file":    {"--sudo-password-file", file},
		"command": {"--sudo-password-command", "cat " + file},
	} {
		s.Write("web/configuration.nix", site.With(site.Configuration(way),
			`  system.activationScripts.pause = "touch /run/paused; while [ -e /run/paused ]; do sleep 0.1; done";`))
		cmd := s.Command(append([]string{"--verbose", "deploy"}, flags...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		site.Until(t, "the activation begins", func() bool {
			return s.Target.Command(t.Context(), "test", "-e", "/run/paused").Run() == nil
		})
		grepFor(s, secret, file)
		s.OnTarget("rm", "/run/paused")
		if err := cmd.Wait(); err != nil {
			t.Fatalf("ferry deploy: %v\n%s", err, out.String())
		}
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s: ferry --verbose shows the password", way)
		}
		grepFor(s, secret, file)
	}
	found, seen := h.stop()
	for _, f := range found {
		t.Errorf("the password is in %s", f)
	}
	for _, program := range []string{"ferry", "ssh", "sudo", "agent-", "systemd-run", "switch-to-configuration"} {
		if !slices.ContainsFunc(seen, func(line string) bool { return strings.Contains(line, program) }) {
			t.Errorf("the hunt has not seen %s", program)
		}
	}
}

// setPassword changes a user's password on the target.
func setPassword(s *site.Site, user, password string) {
	s.T.Helper()
	cmd := s.Target.Command(s.T.Context(), "chpasswd")
	cmd.Stdin = strings.NewReader(user + ":" + password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.T.Fatalf("chpasswd: %v: %s", err, out)
	}
}

// grepFor searches the files of both ends, and the target's journal, for a secret that may only be in the file except.
func grepFor(s *site.Site, secret, except string) {
	s.T.Helper()
	// The secret is no argument: the hunt would find it.
	argv := []string{"grep", "-rlsF", "--devices=skip", "-f", "-", "/boot", "/dev/shm", "/etc", "/home", "/nix/var", "/root", "/run", "/tmp", "/var"}
	target := s.Target.Command(s.T.Context(), argv...)
	builder := s.Builder.Command(s.T.Context(), argv[0], argv[1:]...)
	target.Stdin, builder.Stdin = strings.NewReader(secret), strings.NewReader(secret)
	// grep's status says what its output says as well.
	onTarget, _ := target.Output()
	onBuilder, _ := builder.Output()
	if len(onTarget) > 0 {
		s.T.Errorf("on the target, the password is in\n%s", onTarget)
	}
	if got := string(onBuilder); got != except+"\n" {
		s.T.Errorf("on the builder, the password is in\n%swant it in %s only", got, except)
	}
	if strings.Contains(s.OnTarget("journalctl", "--no-pager", "--output=export"), secret) {
		s.T.Error("the password is in the target's journal")
	}
}

// hunt looks at the processes of the lab, builders and targets alike, again and again.
type hunt struct {
	secret []byte
	quit   chan struct{}
	done   sync.WaitGroup
	found  map[string]bool
	seen   map[string]bool // command lines
}

func startHunt(secret string) *hunt {
	h := &hunt{secret: []byte(secret), quit: make(chan struct{}), found: map[string]bool{}, seen: map[string]bool{}}
	h.done.Go(func() {
		for {
			select {
			case <-h.quit:
				return
			case <-time.After(5 * time.Millisecond):
				h.look()
			}
		}
	})
	return h
}

func (h *hunt) look() {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		// A process may end at any time: what cannot be read holds nothing.
		line, _ := os.ReadFile(process + "/cmdline")
		environ, _ := os.ReadFile(process + "/environ")
		text := string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		h.seen[text] = true
		if bytes.Contains(line, h.secret) {
			h.found["the command line "+text] = true
		}
		if bytes.Contains(environ, h.secret) {
			h.found["the environment of "+text] = true
		}
	}
}

// stop ends the hunt and gives where the secret was found, and every command line that was seen.
func (h *hunt) stop() (found, seen []string) {
	close(h.quit)
	h.done.Wait()
	for f := range h.found {
		found = append(found, f)
	}
	for line := range h.seen {
		seen = append(seen, line)
	}
	return found, seen
}
