package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// sending is a script that sends a signal to ferry's processes on the target: pattern is of what stands behind the program.
func sending(signal, pattern string) string {
	return fmt.Sprintf("pkill -%s -f '^[/]var/lib/ferry/(agent|armed)-[^ ]* %s'", signal, pattern)
}

func killing(pattern string) string { return sending("KILL", pattern) }

// stopped are two scripts: processes stop, and go on. That there are none any more is no error of the second.
func stopped(pattern string) (stops, goes string) {
	return sending("STOP", pattern), sending("CONT", pattern) + "; true"
}

const (
	// killSuccessor waits for the process that the timer starts, and kills it a little later.
	killSuccessor = `for i in $(seq 200); do
	if pgrep -f '^[/]var/lib/ferry/(agent|armed)-[^ ]* rollback' >/dev/null; then
		sleep %.3f
		%s
		exit
	fi
	sleep 0.2
done
exit 1`
	stopActivation  = "pkill -STOP -f '/bin/switch-to-configuration'"
	stopReceiver    = "pkill -STOP -x nix-store"
	receiverGoes    = "pkill -CONT -x nix-store; true"
	killReceiver    = "pkill -9 -x nix-store"
	killAnyNixThere = "pkill -9 '^nix-(store|env)$'"
)

// processFaults are those of ferry's own processes, and of what it has started, on both ends.
func processFaults() []fault {
	agentStops, agentGoes := stopped("serve")
	guardStops, guardGoes := stopped("job")
	return []fault{
		{name: "ferry killed", do: signals(syscall.SIGKILL)},
		{name: "ferry terminated", do: signals(syscall.SIGTERM)},
		{name: "Ctrl-C", do: signals(syscall.SIGINT)},
		{name: "Ctrl-C twice", do: signals(syscall.SIGINT, syscall.SIGINT)},
		{name: "ferry stopped for a while", do: stopsFerry},
		{name: "ferry stopped, and killed when all is over", do: stopsFerryForGood},
		{name: "ssh killed", do: inChildren("ssh", syscall.SIGKILL)},
		{name: "ssh stopped for a while", do: stopsChildren("ssh")},
		{name: "Nix killed here", do: inChildren("nix-", syscall.SIGKILL), in: shipped},
		{name: "agent killed", do: on(killing("serve"))},
		{name: "agent stopped for a while", do: forAWhile(agentStops, agentGoes)},
		{name: "agent stopped until all is over", do: untilTheEnd(agentStops, agentGoes)},
		{name: "guard killed", do: on(killing("job")), in: guarded},
		{name: "guard stopped for a while", do: forAWhile(guardStops, guardGoes), in: guarded},
		{name: "guard stopped for good", do: on(guardStops), in: guarded},
		{name: "activation stopped", do: on(stopActivation), in: []phase{activating, committing, rollingBack}},
		{name: "nix-store killed there", do: on(killReceiver), in: shipped},
		{name: "nix-store stopped there for a while", do: forAWhile(stopReceiver, receiverGoes), in: shipped},
		{name: "Nix killed there", do: on(killAnyNixThere), in: []phase{committing}},
		{name: "guard or its successor killed", do: on(killing("(job|rollback)")), in: guarded},
		{name: "agent and guard killed", do: on(killing("(job|serve)")), in: guarded},
		{name: "ferry, agent and guard killed", in: guarded, do: func(ctx context.Context, r *round, s strike) error {
			if err := signals(syscall.SIGKILL)(ctx, r, s); err != nil {
				return err
			}
			return r.sh(ctx, killing("(job|serve)"))
		}},
		{name: "ferry, agent, guard and its successor killed", in: guarded, do: func(ctx context.Context, r *round, s strike) error {
			_ = signals(syscall.SIGKILL)(ctx, r, s)
			if err := r.sh(ctx, killing("(job|serve)")); err != nil {
				return err
			}
			return r.sh(ctx, fmt.Sprintf(killSuccessor, (s.lasts/6).Seconds(), killing("rollback")))
		}},
	}
}

// signals sends ferry signals, one after another.
func signals(all ...syscall.Signal) func(context.Context, *round, strike) error {
	return func(ctx context.Context, r *round, s strike) error {
		for i, signal := range all {
			if i > 0 {
				pause(ctx, s.lasts/6)
			}
			if err := r.ferry.signal(signal); err != nil {
				return err
			}
		}
		return nil
	}
}

func stopsFerry(ctx context.Context, r *round, s strike) error {
	if err := r.ferry.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// A stopped process is killed all the same, and nothing else goes on without this.
	defer func() { _ = r.ferry.signal(syscall.SIGCONT) }()
	pause(ctx, 2*s.lasts)
	return nil
}

func stopsFerryForGood(_ context.Context, r *round, _ strike) error {
	r.owe(func(context.Context) error {
		_ = r.ferry.signal(syscall.SIGKILL)
		return nil
	})
	return r.ferry.signal(syscall.SIGSTOP)
}

// inChildren sends a signal to those of ferry's children whose programs' names begin so.
func inChildren(name string, signal syscall.Signal) func(context.Context, *round, strike) error {
	return func(_ context.Context, r *round, _ strike) error {
		found := r.ferry.children(name)
		if len(found) == 0 {
			return fmt.Errorf("ferry has no %s", name)
		}
		r.signal(found, signal)
		return nil
	}
}

func (r *round) signal(pids []int, signal syscall.Signal) {
	for _, pid := range pids {
		// It may have ended meanwhile.
		_ = syscall.Kill(pid, signal)
	}
}

func stopsChildren(name string) func(context.Context, *round, strike) error {
	return func(ctx context.Context, r *round, s strike) error {
		found := r.ferry.children(name)
		if len(found) == 0 {
			return fmt.Errorf("ferry has no %s", name)
		}
		r.signal(found, syscall.SIGSTOP)
		pause(ctx, 2*s.lasts)
		r.signal(found, syscall.SIGCONT)
		return nil
	}
}

// children are the processes below ferry whose programs' names begin so.
func (f *ferry) children(name string) (found []int) {
	if f.isOver() {
		return nil
	}
	below := []int{f.cmd.Process.Pid}
	parents := parentsOf()
	for changed := true; changed; {
		changed = false
		for pid, p := range parents {
			if slices.Contains(below, p.parent) && !slices.Contains(below, pid) {
				below, changed = append(below, pid), true
				if strings.HasPrefix(p.name, name) {
					found = append(found, pid)
				}
			}
		}
	}
	return found
}

type process struct {
	name   string
	parent int
}

// parentsOf reads all processes there are.
func parentsOf() map[int]process {
	all := map[int]process{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(filepath.Clean(file))
		if err != nil {
			continue
		}
		// The name is in parentheses, and may have some itself.
		open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
		if open < 0 || end < open {
			continue
		}
		pid, errPid := strconv.Atoi(strings.TrimSpace(string(text[:open])))
		rest := strings.Fields(string(text[end+1:]))
		if errPid != nil || len(rest) < 2 {
			continue
		}
		parent, err := strconv.Atoi(rest[1])
		if err != nil {
			continue
		}
		all[pid] = process{name: string(text[open+1 : end]), parent: parent}
	}
	return all
}

// leftHere are the processes of a machine's builder that are there when nobody works on it: they have its root.
func (m *machine) leftHere() (string, error) {
	links, err := filepath.Glob("/proc/[0-9]*/root")
	if err != nil {
		return "", err
	}
	if len(links) == 0 {
		return "", errors.New("no process can be seen here")
	}
	root := filepath.Clean(m.Builder.Path("/"))
	var found []string
	for _, link := range links {
		if where, err := os.Readlink(link); err != nil || where != root {
			continue
		}
		argv, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		if len(argv) > 0 {
			found = append(found, strings.TrimSpace(strings.ReplaceAll(string(argv), "\x00", " ")))
		}
	}
	return strings.Join(found, "\n"), nil
}
