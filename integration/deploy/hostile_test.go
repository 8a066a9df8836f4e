package deploy_test

import (
	"encoding/binary"
	"strings"
	"syscall"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// frame is a frame of the agent's protocol with any type and payload.
func frame(kind byte, payload string) string {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	return string(head) + payload
}

const (
	magic = "ferry-agent/1 ready\n"
	// hello is what an agent on a target like the lab's would say, with a host name that would take over a terminal.
	hello = `{"protocol":1,"version":"1","facts":{"host":"\u001b]0;owned\u0007\u001b[2Jweb","machine":"x86_64","system":"x86_64-linux",` +
		`"nixos":true,"nix":"2.8.0\u001b[31m","current":"/nix/store/../../tmp/x; rm -rf /","store_free":100000000000}}`
)

// TestAHostileTargetIsSurvived has a program on the target, in the agent's place, say what it should not: ferry ends with
// one clear error, in bounded memory, and the terminal is as it was.
func TestAHostileTargetIsSurvived(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{NoSystemd: true}, Bare: true})
	answer := func(text string) string {
		s.T.Helper()
		if err := s.Target.WriteFile(t.Context(), "/home/bob/answer", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "cat /home/bob/answer; cat >/dev/null"
	}
	for _, c := range []struct{ name, script, text string }{
		{"control characters in an error", `printf 'one\033]0;owned\007\033[2J\033[1;1Htwo\r\0three\302\233\n' >&2; exit 1`, "web: connect: the agent did not start: "},
		{"control characters in the bootstrap's words", `printf 'ferry-bootstrap: machine \033]0;owned\007vax\n'; exit 1`,
			`web: connect: the target is a "vax" machine, and ferry has no agent for that`},
		{"a line without end", `tr '\0' x </dev/zero`, "web: connect: the target says a line of more than 65536 bytes before the agent speaks"},
		{"lines without end", "yes", "web: connect: the target's login shell prints without end"},
		{"standard error without end", `tr '\0' x </dev/zero >&2`, "web: connect: the target writes to standard error without end"},
		{"questions without end", `p=$3; while printf %s "$p" >&2; do read -r x; done`, "web: connect: sudo: the password from --sudo-password-file was wrong"},
		{"a request for the agent of another machine", "echo ferry-bootstrap: need vax; cat >/dev/null", `web: connect: the target asked for an agent for "vax", which ferry did not offer`},
		{"silence and the end", "exit 0", "web: connect: the agent did not start"},
		{"no frames", answerOf("0123456789 hello there\n"), "web: connect: "},
		{"a frame that is too long", answerOf("h\xff\xff\xff\xff"), "web: connect: "},
		{"another frame than hello", answerOf(frame('r', "{}")), "web: connect: what answered is not ferry's agent"},
		{"a hello that is no JSON", answerOf(frame('h', "{\x1b[2J")), "web: connect: the agent's first message cannot be read: "},
		{"another protocol", answerOf(frame('h', `{"protocol":7}`)), "web: connect: the agent speaks protocol 7, ferry 1"},
		{"a lock whose holder's name would take over a terminal", answerOf(frame('h', `{"protocol":1,"facts":{"lock":{"who":"\u001b]0;owned\u0007eve\nferry: error: all is lost","since":1}}}`)),
			"web: connect: eve?ferry: error: all is lost is deploying to this target since "},
		{"an answer to another request", answerOf(frame('h', hello) + frame('r', `{"id":9,"missing":[]}`)), "web: ship: ask what is missing: the agent on "},
		{"an answer with a wrong path", answerOf(frame('h', hello) + frame('r', `{"id":1,"missing":[99999]}`)), "web: ship: ask what is missing: the agent on "},
		{"an answer that is no JSON", answerOf(frame('h', hello) + frame('r', `{"id":`)), "web: ship: ask what is missing: the agent on "},
		{"a frame that ferry does not know", answerOf(frame('h', hello) + frame('z', "")), "web: ship: ask what is missing: the agent on "},
		{"log lines where none are due", answerOf(frame('h', hello) + frame('l', strings.Repeat("x", 1<<16))), "web: ship: ask what is missing: the agent on "},
		{"an error that would take over a terminal", answerOf(frame('h', hello) + frame('r', `{"id":1,"error":{"text":"\u001b]0;owned\u0007no\nno","stderr":["\u001b[2Ja\rb"]}}`)),
			"web: ship: ask what is missing: no?no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.In(t)
			script := c.script
			if said, fake := strings.CutPrefix(script, fakeAgent); fake {
				script = answer(magic + said)
			}
			if err := s.Target.WriteFile(t.Context(), "/home/bob/evil", []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			s.Inventory(s.Node("bob@"+s.Target.Name(), `elevate = [ "/home/bob/evil" ];`))
			if strings.Contains(script, `p=$3`) {
				// As sudo itself, which is told what to ask with.
				s.OnTarget("cp", "/home/bob/evil", "/home/bob/sudo")
				s.Inventory(s.Node("bob@"+s.Target.Name(), `elevate = [ "/home/bob/sudo" ];`))
			}
			cmd, ended := s.Background("deploy", "--unsafe", "--sudo-password-file", s.Password)
			o := ended()
			o.Errors = withoutHints(o.Errors)
			o.Fails(t, 1, c.text)
			if peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss; peak > 256<<10 {
				t.Errorf("ferry or Nix needed %d KiB", peak)
			}
			if strings.Contains(o.Errors, "owned") {
				t.Errorf("the text of an escape sequence is shown: %q", o.Errors)
			}
			site.Until(t, "the target's processes end", func() bool {
				return s.OnTarget("sh", "-c", "ps -u bob -o args= 2>/dev/null | grep -v sshd; true") == ""
			})
		})
	}
}

// fakeAgent marks what a fake agent says, instead of a script.
const fakeAgent = "fake agent: "

func answerOf(said string) string { return fakeAgent + said }

func withoutHints(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "ferry: hint: ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestALoginShellThatTalks prints before the agent starts: some lines are no harm, megabytes are an error.
func TestALoginShellThatTalks(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Login: "bob"})
	greet := func(script string) {
		if err := s.Target.WriteFile(t.Context(), "/home/bob/.bashrc", []byte(script+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	greet(`head -c 5000000 /dev/zero | tr '\0' x | fold -w 70`)
	s.Ferry("deploy").Fails(t, 1, "web: connect: the target's login shell prints without end")
	greet(`printf '\033]0;owned\007Welcome to \033[1mweb\033[0m\nferry-bootstrap: \nHave a nice day'; echo oh dear >&2`)
	o := s.Ferry("deploy")
	o.Says(t, "web: done: generation 2")
	if o.Status != 0 || strings.Contains(o.Errors, "\x1b") || strings.Contains(o.Errors, "owned") {
		t.Errorf("status %d: %q", o.Status, o.Errors)
	}
}

// TestAnActivationThatWritesAnything is shown cleaned, of an endless line the beginning.
func TestAnActivationThatWritesAnything(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Login: "bob"})
	s.Write("web/configuration.nix", site.With(site.Configuration("first"), `system.activationScripts.noise = ''
    printf 'one\033]0;owned\007\033[2J\033[1;1Htwo\rthree\nferry: error: a lie\n'
    head -c 3000000 /dev/zero | tr '\0' x
    printf '\nlast\n'
  '';`))
	o := s.Ferry("deploy")
	for line := range strings.Lines(o.Errors) {
		if line = strings.TrimSuffix(line, "\n"); !site.Visible.MatchString(line) || len(line) > 3000 {
			t.Errorf("a line of %d bytes: %.200q", len(line), line)
		}
	}
	o.Says(t, "web | three\n", "web | ferry: error: a lie\n", "x…\nweb | last\n", "web: done: generation 2")
	if o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}

	s.Write("web/configuration.nix", site.With(site.Configuration("second"), `system.activationScripts.noise = "printf 'one\\033]0;owned\\007two\\033[2J\\n'";`))
	p := s.Person("deploy")
	if o := p.Ends(); o.Status != 0 || strings.Contains(strings.ReplaceAll(o.Errors, "\x1b[K", ""), "\x1b") {
		t.Errorf("status %d, or the terminal is not as it was", o.Status)
	}
}
