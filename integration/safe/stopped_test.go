package safe_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestAnAgentThatIsStoppedHoldsNobodyUp stops the agent in the middle of a ship. Its own ferry notices, and goes on with another one;
// where that ferry is gone as well, the next one does not wait for it.
func TestAnAgentThatIsStoppedHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	x := &trial{Rehearsal: r}
	stage := site.OnWire("ship", site.Shipped/2)
	for _, killed := range []bool{true, false} {
		greeting := r.Rewrite()
		stage.Begin(r)
		cmd, ended := r.Background("deploy", "--sudo-password-file", r.Password)
		r.Await(stage)
		x.signals("STOP", "serve")
		if killed {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			ended()
			stage.Release(r)
			r.Deploy().Says(t, "web: done: generation ")
		} else {
			stage.Release(r)
			o := ended()
			o.Says(t, "does not answer: nothing has come from it for 1m0s); connecting again", "web: note: connected again", "web: done: generation ")
			if o.Status != 0 {
				t.Errorf("status %d", o.Status)
			}
		}
		if got := r.OnTarget("cat", "/etc/greeting"); got != greeting {
			t.Errorf("the target greets with %q, want %q", got, greeting)
		}
		// ssh of a ferry that is killed leaves its folder.
		r.NothingRunsThere()
	}
}

// TestATargetThatAnswersTheHelloAndThenNothing is one that every command leaves after a while, and says why.
func TestATargetThatAnswersTheHelloAndThenNothing(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{NoSystemd: true}, Bare: true})
	hello := `{"protocol":1,"version":"1","facts":{"host":"web","machine":"x86_64","system":"x86_64-linux","nixos":true,"nix":"2.8.0","store_free":100000000000}}`
	script := `#!/bin/sh
printf 'ferry-agent/1 ready\nh\000\000\000\` + octal(len(hello)) + `%s' '` + hello + `'
sleep 100000
`
	if err := s.Target.WriteFile(t.Context(), "/home/bob/silent", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	s.Inventory(s.Node("bob@"+s.Target.Name(), `elevate = [ "/home/bob/silent" ];`))
	const says = "does not answer: nothing has come from"
	var ends []func() site.Outcome
	commands := [][]string{{"deploy", "--unsafe"}, {"status"}, {"check"}, {"exec", "web", "--sudo", "--", "true"}, {"history", "web"}, {"generations", "web"}}
	for _, args := range commands {
		_, ended := s.Background(args...)
		ends = append(ends, ended)
	}
	for i, ended := range ends {
		o := ended()
		if o.Status == 0 || !strings.Contains(o.Errors+o.Out, says) {
			t.Errorf("%v: status %d:\n%s\n%s", commands[i], o.Status, o.Out, o.Errors)
		}
	}
	s.OnTarget("sh", "-c", "pkill -u bob sleep; true")
}

func octal(n int) string {
	const digits = "01234567"
	return string([]byte{digits[n>>6&7], digits[n>>3&7], digits[n&7]})
}
