package lab

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestABuilderHasANixStoreOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		opts BuilderOptions
		nix  string
	}{
		"bookworm as root":       {BuilderOptions{}, "2.8"},
		"trixie as root":         {BuilderOptions{Suite: "trixie"}, "2.26"},
		"bookworm as plain user": {BuilderOptions{Plain: true}, "2.8"},
		"trixie as plain user":   {BuilderOptions{Suite: "trixie", Plain: true}, "2.26"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, other := NewBuilder(t, test.opts), NewBuilder(t, test.opts)
			version, err := b.Output(t.Context(), "nix-store", "--version")
			if err != nil || !strings.Contains(string(version), test.nix) {
				t.Errorf("Nix is %q (%v), want %s", version, err, test.nix)
			}
			const expression = `derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh"; args = ["-c" "echo hello >$out"]; }`
			out, err := b.Output(t.Context(), "nix-build", "--no-out-link", "-E", expression)
			if err != nil {
				t.Fatal(err)
			}
			path := strings.TrimSpace(string(out))
			if _, err := b.Output(t.Context(), "nix-store", "--check-validity", path); err != nil {
				t.Error(err)
			}
			if _, err := other.Output(t.Context(), "nix-store", "--check-validity", path); err == nil {
				t.Errorf("%s is valid on another builder as well", path)
			}
		})
	}
}

func TestABuilderReachesItsTargetsByName(t *testing.T) {
	t.Parallel()
	target := StartTarget(t, Options{})
	for name, opts := range map[string]BuilderOptions{"root": {}, "plain user": {Suite: "trixie", Plain: true}} {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder(t, opts)
			if err := b.Know(target); err != nil {
				t.Fatal(err)
			}
			for _, login := range []string{"root", "alice", "zoe", "finn"} {
				out, err := b.Output(t.Context(), "ssh", login+"@"+target.Name(), "id", "-un")
				if err != nil || strings.TrimSpace(string(out)) != login {
					t.Errorf("login as %s: %q, %v", login, out, err)
				}
			}
		})
	}
}

func TestATargetIsTheJumpHostToAnother(t *testing.T) {
	t.Parallel()
	near, far, b := StartTarget(t, Options{NoSystemd: true}), StartTarget(t, Options{NoSystemd: true}), NewBuilder(t, BuilderOptions{})
	if err := b.Know(near, far); err != nil {
		t.Fatal(err)
	}
	out, err := b.Output(t.Context(), "ssh", "-J", "bob@"+near.Name(), "alice@"+far.Name(), "hostname; echo $SSH_CLIENT")
	if f := strings.Fields(string(out)); err != nil || len(f) < 2 || f[1] != near.Addr().String() {
		t.Errorf("%q (%v): want a connection that comes from %s", out, err, near.Addr())
	}
}

func TestALoginWithAPasswordIsPossible(t *testing.T) {
	t.Parallel()
	target, b := StartTarget(t, Options{Suite: "trixie", NoSystemd: true}), NewBuilder(t, BuilderOptions{Plain: true})
	if err := b.Know(target); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	term, err := OpenTerminal(b.Command(ctx, "ssh", "-o", "PubkeyAuthentication=no", "carol@"+target.Name(), "id", "-un"))
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Expect(ctx, "password:"); err != nil {
		t.Error(err)
	}
	if err := term.Type(Password + "\n"); err != nil {
		t.Error(err)
	}
	if err := term.Expect(ctx, "carol\r\n"); err != nil {
		t.Error(err)
	}
	if status, err := term.Wait(); status != 0 || err != nil {
		t.Errorf("ended with %d, %v", status, err)
	}
}

func TestSudoTakesThePasswordOfAUserAndNoOther(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			target, b := StartTarget(t, Options{Suite: suite}), NewBuilder(t, BuilderOptions{})
			if err := b.Know(target); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			term, err := OpenTerminal(b.Command(ctx, "ssh", "-t", "alice@"+target.Name(), "sudo", "id", "-un"))
			if err != nil {
				t.Fatal(err)
			}
			for _, password := range []string{"wrong", Password} {
				if err := term.Expect(ctx, "password for alice:"); err != nil {
					t.Fatal(err)
				}
				if err := term.Type(password + "\n"); err != nil {
					t.Fatal(err)
				}
			}
			if status, err := term.Wait(); status != 0 || err != nil {
				t.Fatalf("ended with %d, %v\n%s", status, err, term.Shown())
			}
			if shown := term.Shown(); !strings.Contains(shown, "Sorry, try again") || !strings.Contains(shown, "\nroot\n") {
				t.Errorf("the terminal showed %q", shown)
			}
			logins, err := target.Authentications(ctx)
			if logins != 1 || err != nil {
				t.Errorf("%d logins (%v), want 1", logins, err)
			}
			elevations, err := target.Elevations(ctx)
			if elevations != 1 || err != nil {
				log, _ := target.AuthLog(ctx)
				t.Errorf("%d elevations (%v), want 1\n%s", elevations, err, log)
			}
		})
	}
}

func TestEachUserBecomesRootInTheirWay(t *testing.T) {
	t.Parallel()
	target, b := StartTarget(t, Options{}), NewBuilder(t, BuilderOptions{})
	if err := b.Know(target); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, test := range map[string]struct {
		user   string
		argv   []string
		stdin  string
		wanted string // in what it prints, errors included
	}{
		"bob's sudo asks nothing":           {"bob", []string{"sudo", "-n", "id", "-un"}, "", "root"},
		"dora's doas asks nothing":          {"dora", []string{"doas", "id", "-un"}, "", "root"},
		"carol may not":                     {"carol", []string{"sudo", "-S", "id", "-un"}, Password, "not in the sudoers"},
		"rita needs a terminal":             {"rita", []string{"sudo", "-S", "id", "-un"}, Password, "must have a tty"},
		"zoe has zsh":                       {"zoe", []string{"sudo", "-S", "id", "-un"}, Password, "root"},
		"dave's doas needs a terminal":      {"dave", []string{"doas", "id", "-un"}, Password, "Authentication failed"},
		"alice's sudo reads standard input": {"alice", []string{"sudo", "-S", "id", "-un"}, Password, "root"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := b.Command(ctx, "ssh", append([]string{test.user + "@" + target.Name()}, test.argv...)...)
			cmd.Stdin = strings.NewReader(test.stdin + "\n")
			out, _ := cmd.CombinedOutput()
			if !strings.Contains(string(out), test.wanted) {
				t.Errorf("printed %q, want %q in it", out, test.wanted)
			}
		})
	}
	if n, err := target.Elevations(ctx); n != 4 || err != nil {
		log, _ := target.AuthLog(ctx)
		t.Errorf("%d elevations (%v), want 4: bob, dora, zoe, alice\n%s", n, err, log)
	}
}
