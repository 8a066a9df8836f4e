package server

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/nix"

	"github.com/klauspost/compress/zstd"
)

// askAbout sends a request with a stream of lines.
func (f *ferry) askAbout(r agent.Request, lines string) agent.Response {
	f.t.Helper()
	f.send(r)
	sent := make(chan error, 1)
	// An agent that refuses answers before it has read everything.
	go func() {
		w := f.wire.DataWriter()
		z, err := zstd.NewWriter(w, zstd.WithWindowSize(1<<20))
		if err == nil {
			_, err = io.WriteString(z, lines)
			err = errors.Join(err, z.Close(), w.Close())
		}
		sent <- err
	}()
	response, _ := f.answer()
	if err := <-sent; err != nil {
		f.t.Fatal(err)
	}
	return response
}

// TestDerivationsAreToldAsManyAsFit asks for small ones, one that is no derivation, one that is gone, and too many.
func TestDerivationsAreToldAsManyAsFit(t *testing.T) {
	m := newMachine(t)
	drv := func(name string) nix.StorePath {
		return nix.StorePath("/nix/store/" + strings.Repeat("4", 32) + "-" + name + ".drv")
	}
	m.Write(string(drv("a")), "Derive(<a>)")
	m.Write(string(drv("big")), strings.Repeat("x", agent.MaxDerivations))
	m.Write(string(drv("huge")), strings.Repeat("x", agent.MaxDerivations+1))
	f := m.connect(Options{})
	r := f.askAbout(agent.Request{Method: agent.MethodDerivations}, strings.Join([]string{
		string(drv("a")), string(newSystem), string(drv("gone")), string(drv("huge")), string(drv("big")), string(drv("a")), "",
	}, "\n"))
	if r.Error != nil || r.Derivations == nil {
		t.Fatalf("%+v", r)
	}
	if texts := r.Derivations.Texts; len(texts) != 4 || string(texts[0]) != "Derive(<a>)" || len(texts[1])+len(texts[2])+len(texts[3]) != 0 {
		t.Errorf("%d texts", len(texts))
	}
	r = f.askAbout(agent.Request{Method: agent.MethodDerivations}, string(drv("big"))+"\n"+string(drv("a"))+"\n")
	if r.Error != nil || len(r.Derivations.Texts) != 1 || len(r.Derivations.Texts[0]) != agent.MaxDerivations {
		t.Errorf("%+v", r.Error)
	}
	if r = f.askAbout(agent.Request{Method: agent.MethodDerivations}, "/etc/shadow\n"); r.Error == nil {
		t.Error("a file outside of the store is told")
	}
}

// nixInstantiate evaluates as the files in /control say.
const nixInstantiate = `#!/bin/sh
[ "$1" != --version ] || { echo "nix-instantiate (Nix) 2.99.0"; exit; }
echo "nix-instantiate $*" >>"$FERRY_TEST_ROOT/calls"
echo "evaluation says: hello" >&2
[ ! -e "$FERRY_TEST_ROOT/control/fails" ] || { echo "error: undefined variable 'x'" >&2; exit 1; }
cat "$FERRY_TEST_ROOT/control/drv"
`

// TestEvaluationIsThatOfPlainNixosRebuild locks the command line, and that nothing may be built or fetched by it.
func TestEvaluationIsThatOfPlainNixosRebuild(t *testing.T) {
	m := newMachine(t)
	m.Program("/bin/nix-instantiate", nixInstantiate)
	const drv = "/nix/store/44444444444444444444444444444444-nixos-system-x.drv"
	m.Write("/control/drv", drv+"\n")
	m.Write(drv, `Derive([("out","`+string(newSystem)+`","","")],[],[],"x86_64-linux","/bin/sh",[],[])`)
	f := m.connect(Options{})
	r, log := f.ask(agent.Request{Method: agent.MethodEvaluate})
	if r.Error != nil || *r.Evaluate != (agent.EvaluateResult{Derivation: drv, Toplevel: newSystem, Nix: "2.99.0"}) || log != "evaluation says: hello\n" {
		t.Errorf("%+v, %v, %q", r.Evaluate, r.Error, log)
	}
	place := m.Path(currentConfiguration)
	want := "nix-instantiate <nixpkgs/nixos> -A system -I nixpkgs=" + place + "/nixpkgs -I nixos-config=" + place + "/configuration.nix" +
		" --option max-jobs 0 --option builders  --option substitute false"
	if calls := m.calls(); len(calls) != 1 || calls[0] != want {
		t.Errorf("ran %q", calls)
	}
	m.Write("/control/fails", "")
	if r, _ := f.ask(agent.Request{Method: agent.MethodEvaluate}); r.Error == nil || r.Error.Text != "error: undefined variable 'x'" {
		t.Errorf("%+v", r.Error)
	}
}

// TestEvaluationNeedsADeployment asks a machine that has nothing of ferry's.
func TestEvaluationNeedsADeployment(t *testing.T) {
	m := newMachine(t)
	_ = os.Remove(m.Path(currentConfiguration))
	if r, _ := m.connect(Options{}).ask(agent.Request{Method: agent.MethodEvaluate}); r.Error == nil || r.Error.Kind != agent.KindNone {
		t.Errorf("%+v", r)
	}
}

// TestAClosureIsToldWithItsSizes asks the real Nix about two paths of which one needs the other.
func TestAClosureIsToldWithItsSizes(t *testing.T) {
	m := newMachine(t)
	useRealNix(t, m)
	f := m.connect(Options{})
	if r, _ := f.ask(agent.Request{Method: agent.MethodClosure, Toplevel: newSystem}); r.Error == nil || r.Error.Kind != agent.KindInvalid {
		t.Errorf("of a path that is not there: %+v", r)
	}
	if r, _ := f.ask(agent.Request{Method: agent.MethodClosure, Toplevel: "/etc"}); r.Error == nil || r.Error.Kind != agent.KindInvalid {
		t.Errorf("of no store path: %+v", r)
	}
}
