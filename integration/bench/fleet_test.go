package bench

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ferry/internal/lab"
	"ferry/internal/prose"
)

// fleetTitle is the section about many nodes, fleetNodes are as many as there are of it, and lightNodes those that are only looked at.
const (
	fleetTitle = "Fleet"
	fleetNodes = 20
	lightNodes = 200
)

// fleetDelay is how far away the nodes are to which one change is shipped.
const fleetDelay = 50 * time.Millisecond

// What a person would run instead, as scripts with the nodes as arguments. $0 is nixpkgs.
const (
	handSystem = `"$0/nixos" -A system --arg configuration "./$n.nix"`
	handSwitch = `for n; do system=$(nix-build --no-out-link ` + handSystem + `) && nix-copy-closure --to "root@$n" "$system" &&
		ssh "root@$n" "nix-env -p /nix/var/nix/profiles/system --set $system && $system/bin/switch-to-configuration switch" || exit 1; done`
	handOneByOne = `for n; do nix-build --no-out-link ` + handSystem + ` || exit 1; done`
	handAll      = `nix-build --no-out-link all.nix`
	handShip     = `pids=; for n; do nix-copy-closure --to "root@$n" "$(readlink "../systems/$n")" & pids="$pids $!"; done; for p in $pids; do wait "$p" || exit 1; done`
	handTry      = handShip + `; pids=; for n; do ssh "root@$n" "$(readlink "../systems/$n")/bin/switch-to-configuration dry-activate" & pids="$pids $!"; done; for p in $pids; do wait "$p" || exit 1; done`
	handLogin    = `pids=; for n; do ssh "root@$n" true & pids="$pids $!"; done; for p in $pids; do wait "$p" || exit 1; done`
)

// fleet is a site with several targets.
type fleet struct {
	*site
	names   []string
	targets []*lab.Target
	// weight is a Nix expression that every configuration evaluates besides, and cargo the path of a file that is part of it.
	weight, cargo string
}

// TestAFleetIsMeasured goes once through everything with a single node; with -write it has all of them.
func TestAFleetIsMeasured(t *testing.T) {
	nodes, light, n := 1, 1, 1
	if *write != "" {
		if !wanted(fleetTitle) {
			return
		}
		nodes, light, n = fleetNodes, lightNodes, *rounds
	}
	f := newFleet(t, nodes)
	defer func() { f.ok(f.builder.Close()) }()
	text := fmt.Sprintf("\n## %s\n\n%s", fleetTitle, measuredOn()) + `Several nodes, each with a configuration and a narrowed source of its own. By hand is what stands there, of the system alone, and in favour of
the hand nothing confirms anything. All of the machines share the cores of this one. **Ratio** is ferry's time to that by hand.

| what | nodes | ferry | by hand | ferry | hand | ratio |
|---|---:|---|---|---:|---:|---:|
`
	text += f.unchanged(n) + f.evaluated(n) + f.shipped(n) + f.driven(light)
	t.Log(text)
	if *write != "" {
		before, err := os.ReadFile(*write)
		if err == nil {
			err = os.WriteFile(*write, []byte(page(string(before), text)), 0o644)
		}
		f.ok(err)
	}
}

// newFleet starts targets, and deploys to each of them.
func newFleet(t *testing.T, nodes int) *fleet {
	t.Helper()
	f := &fleet{site: &site{t: t}}
	var err error
	f.builder, err = lab.OpenBuilder(t.Context(), lab.BuilderOptions{})
	f.ok(err)
	f.prepare()
	f.write("../installed.nix", `{ networking.hostName = "web"; services.openssh.enable = true; }`)
	installed := f.output("nix-build", "--no-out-link", f.nixpkgs+"/nixos", "-A", "system", "--arg", "configuration", f.path("installed.nix"))
	f.targets = make([]*lab.Target, nodes)
	var group sync.WaitGroup
	for i := range nodes {
		f.names = append(f.names, fmt.Sprintf("node%02d", i+1))
		group.Go(func() {
			f.targets[i] = lab.StartTarget(t, lab.Options{})
			f.ok(f.targets[i].InstallSystem(t.Context(), f.builder, installed))
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	f.away(0)
	inventory, all := "", ""
	for _, name := range f.names {
		inventory += fmt.Sprintf("  nodes.%[1]s = { configuration = ./%[1]s.nix; source = [ ./common ./cargo ]; target = \"root@%[1]s\"; };\n", name)
		all += fmt.Sprintf("  (import %q { configuration = ./%s.nix; }).system\n", f.nixpkgs+"/nixos", name)
	}
	f.write("ferry.nix", fmt.Sprintf("{\n  nixpkgs = %q;\n%s}\n", f.nixpkgs, inventory))
	f.write("all.nix", "[\n"+all+"]\n")
	f.write("common/motd", "hello\n")
	f.write("cargo", "none\n")
	f.become("zero", f.names...)
	f.run(`ferry deploy --all`)
	return f
}

// away makes the targets known behind relays of this delay.
func (f *fleet) away(delay time.Duration) {
	f.t.Helper()
	f.ok(f.builder.Forget())
	for i, name := range f.names {
		relay := lab.StartRelay(f.t, addrPort(f.targets[i]), lab.RelayOptions{Delay: delay})
		f.ok(f.builder.KnowThrough(name, relay, f.targets[i]))
	}
}

// become gives nodes another configuration.
func (f *fleet) become(word string, names ...string) {
	f.t.Helper()
	cargo := ""
	if f.cargo != "" {
		// In another place of the store each time, as a package that is built with a new nixpkgs is.
		cargo = fmt.Sprintf(`environment.etc."cargo".source = derivation {
    name = "cargo"; inherit (pkgs.busybox) system; builder = "${pkgs.busybox}/bin/busybox";
    args = [ "sh" "-c" "${pkgs.busybox}/bin/busybox cp ${%s} $out && echo $out >>$out" ]; word = %q;
  };`, f.cargo, word)
	}
	for _, name := range names {
		f.write(name+".nix", fmt.Sprintf(`{ pkgs, ... }: {
  networking.hostName = %[1]q;
  services.openssh.enable = true;
  environment.etc."greeting".text = "%[2]s %[1]s";
  environment.etc."weight".text = toString (%[3]s);
  %[4]s
  systemd.services.greeter = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000";
    environment.GREETING = %[2]q;
  };
}
`, name, word, cmp.Or(f.weight, "0"), cargo))
	}
}

// run runs a script in the project, with names of nodes as arguments, and gives the time that it took.
func (f *fleet) run(script string, names ...string) time.Duration {
	f.t.Helper()
	took, _ := f.runs(script, names...)
	return took
}

// runs gives what it used as well.
func (f *fleet) runs(script string, names ...string) (time.Duration, *syscall.Rusage) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Minute)
	defer cancel()
	// The project is where sh begins, and not among what the script knows.
	cmd := f.builder.Command(ctx, "env", append([]string{"-C", f.path("project"), "sh", "-c", script, f.nixpkgs}, names...)...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		f.t.Fatalf("%s: %v\n%s", script, err, output.String())
	}
	took := time.Since(begin)
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return took, usage
}

// compared measures ferry and the hand in turn, each after what prepares it, and gives the row.
func (f *fleet) compared(what string, rounds int, before func(turn int), ferry, hand, shown string, ferryNodes, handNodes []string) string {
	f.t.Helper()
	var byFerry, byHand []time.Duration
	for i := range rounds {
		before(2 * i)
		byFerry = append(byFerry, f.run(ferry, ferryNodes...))
		before(2*i + 1)
		byHand = append(byHand, f.run(hand, handNodes...))
	}
	a, b := middle(byFerry).Seconds(), middle(byHand).Seconds()
	return fmt.Sprintf("| %s | %d | `%s` | %s | %.2f s | %.2f s | **%.2f** |\n", what, len(ferryNodes), strings.TrimSuffix(ferry, ` "$@"`), shown, a, b, a/b)
}

const shownSwitch = "nix-build, nix-copy-closure, and ssh with nix-env and switch-to-configuration, for each"

// unchanged deploys what is there already.
func (f *fleet) unchanged(rounds int) string {
	f.t.Helper()
	nothing := func(int) {}
	text := ""
	for _, names := range [][]string{f.names[:1], f.names} {
		f.run(handSwitch, names...)
		f.run(`ferry deploy --replace-unknown "$@"`, names...)
		text += f.compared("nothing changed", rounds, nothing, `ferry deploy "$@"`, handSwitch, shownSwitch, names, names) +
			f.compared("nothing changed", rounds, nothing, `ferry deploy "$@"`, handLogin, "ssh with true, all at once", names, names)
	}
	return text
}

// heavy is an evaluation that takes about a second: what a small system on nixpkgs does. The stand-in's takes a few hundredths.
const heavy = `builtins.foldl' (n: k: n + builtins.length (builtins.filter (s: builtins.stringLength s > 3) (builtins.genList (i: toString (i * k)) 1000000))) 0 [ 1 3 5 7 ]`

// evaluated evaluates what is built already, with nothing in ferry's cache, and then with one node's source changed.
func (f *fleet) evaluated(rounds int) string {
	f.t.Helper()
	text := ""
	for _, of := range []struct{ weight, title string }{{"0", "evaluate"}, {heavy, "evaluate, a second's work for each"}} {
		if f.weight = of.weight; of.weight == heavy && *write == "" {
			continue
		}
		f.become("evaluated", f.names...)
		f.run(handOneByOne, f.names...)
		f.run(`ferry build "$@"`, f.names...)
		cold := func(hand, shown string) string {
			return f.compared(of.title+", cold; all of it is built", rounds, func(int) {}, `ferry build --no-cache "$@"`, hand, shown, f.names, f.names)
		}
		changed := func(turn int) {
			f.become(fmt.Sprintf("evaluated %d", turn), f.names[0])
			f.run(handOneByOne, f.names[0])
			// The bundle is built as well, and its evaluation forgotten.
			f.run(`cp -a "$HOME/.cache/ferry" ../cache && ferry build "$1" && rm -r "$HOME/.cache/ferry" && mv ../cache "$HOME/.cache/ferry"`, f.names[0])
		}
		text += cold(handAll, "one nix-build over all") + cold(handOneByOne, "a nix-build for each") +
			f.compared(of.title+", one node changed; all of it is built", rounds, changed, `ferry build "$@"`, handOneByOne, "nix-build of that node", f.names, f.names[:1])
	}
	f.weight = ""
	return text
}

// What is shipped besides a few lines: a package of so many bytes that do not compress, over links of so many bits a second.
const (
	cargoBytes = 20 << 20
	fleetBits  = 20_000_000
)

// shipped ships one change, which is built and evaluated, to all nodes.
func (f *fleet) shipped(rounds int) string {
	f.t.Helper()
	f.away(fleetDelay)
	f.output("mkdir", "-p", f.path("systems"))
	title := fmt.Sprintf("ship one change, %d ms away", fleetDelay.Milliseconds())
	changed := func(turn int) {
		f.become(fmt.Sprintf("shipped %d", turn), f.names...)
		f.run(`ferry build "$@"`, f.names...)
		f.run(`for n; do nix-build --out-link "../systems/$n" `+handSystem+` || exit 1; done`, f.names...)
	}
	const ferry = `ferry deploy --action dry-activate "$@"`
	text := f.compared(title, rounds, changed, ferry, handTry, "nix-copy-closure of the built systems, all at once; then ssh with switch-to-configuration dry-activate, all at once", f.names, f.names) +
		f.compared(title, rounds, changed, ferry, handShip, "nix-copy-closure alone", f.names, f.names) +
		f.compared(title, rounds, changed, ferry, handLogin, "ssh with true, all at once", f.names, f.names)
	if *write == "" {
		return text
	}
	f.output("sh", "-c", fmt.Sprintf("head -c %d /dev/urandom >%s", cargoBytes, f.path("project/cargo")))
	f.cargo = "./cargo"
	f.become("shipped before", f.names...)
	f.run(`ferry deploy "$@"`, f.names...)
	for _, target := range f.targets {
		f.ok(target.Bandwidth(f.t.Context(), fleetBits))
	}
	text += f.compared(fmt.Sprintf("ship a package of %d MiB that was built again, %d ms away, %d Mbit/s each", cargoBytes>>20, fleetDelay.Milliseconds(), fleetBits/1_000_000), rounds, changed,
		ferry, handShip, "nix-copy-closure alone", f.names, f.names)
	for _, target := range f.targets {
		f.ok(target.Bandwidth(f.t.Context(), 0))
	}
	f.cargo = ""
	return text
}

// driven looks at many nodes, which are names of a few machines without systemd: what ferry needs itself does not depend on that.
func (f *fleet) driven(nodes int) string {
	f.t.Helper()
	f.ok(f.builder.Forget())
	inventory := ""
	machines := make([]*lab.Target, min(nodes, fleetNodes))
	for i := range machines {
		machines[i] = lab.StartTarget(f.t, lab.Options{NoSystemd: true})
	}
	for i := range nodes {
		name := fmt.Sprintf("light%03d", i+1)
		machine := machines[i%len(machines)]
		relay := lab.StartRelay(f.t, addrPort(machine), lab.RelayOptions{})
		f.ok(f.builder.KnowThrough(name, relay, machine))
		inventory += fmt.Sprintf("  nodes.%[1]s = { configuration = ./node01.nix; target = \"root@%[1]s\"; };\n", name)
	}
	f.write("ferry.nix", fmt.Sprintf("{\n  nixpkgs = %q;\n%s}\n", f.nixpkgs, inventory))
	const script = `ferry status --json >status.json && [ "$(grep -c '"reached": true' status.json)" = "$1" ]`
	f.run(script, fmt.Sprint(nodes))
	took, usage := f.runs(script, fmt.Sprint(nodes))
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return fmt.Sprintf("\n`ferry status` of %d nodes, which are names of %d machines without systemd, took %.2f s. ferry, its ssh processes and the Nix that reads the inventory "+
		"used %.2f s of CPU, which is %.2f cores; the largest of these processes had %s.\n", nodes, len(machines), took.Seconds(), cpu.Seconds(), cpu.Seconds()/took.Seconds(), prose.Size(uint64(usage.Maxrss)<<10))
}
