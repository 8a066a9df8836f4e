package agent

import (
	"fmt"
	"path"
	"strings"

	"ferry/internal/run"
)

// The lines that the bootstrap script says on its standard output before the agent speaks.
const (
	bootstrapNeed    = "ferry-bootstrap: need "    // the machine, as uname -m says it: the agent for it is not there yet
	bootstrapMachine = "ferry-bootstrap: machine " // uname -m: ferry has no agent for it
	bootstrapFailed  = "ferry-bootstrap: failed "  // what went wrong with putting the agent in place
)

// Folder is where agents are installed on a target, root-owned, each under its content hash.
const Folder = "/var/lib/ferry"

// machines are patterns for what uname -m says on machines that p is for.
func (p Program) machines() []string {
	switch p.Machine {
	case "i686":
		return []string{"i?86"}
	case "aarch64":
		return []string{"aarch64", "arm64"}
	case "armv7l":
		return []string{"armv7*", "armv8l"}
	case "armv6l":
		return []string{"armv6*"}
	}
	return []string{p.Machine}
}

// programOf finds the program for a machine that uname -m calls so.
func programOf(machine string, programs []Program) (Program, bool) {
	for _, p := range programs {
		for _, pattern := range p.machines() {
			if match, err := path.Match(pattern, machine); err == nil && match {
				return p, true
			}
		}
	}
	return Program{}, false
}

// bootstrapScript is what runs as root on the target: it checks the installed agent's hash, asks for the agent on standard
// input where it is missing or damaged, and becomes the agent. It is a single line and has no quote, backslash or
// exclamation mark, so that every login shell passes it on unharmed and sudo's log shows it as it is. Only tools that are
// in every NixOS's system path are used.
func bootstrapScript(folder string, programs []Program, args []string) string {
	return fmt.Sprintf("umask 022; case $(uname -m) in %s*) echo %s$(uname -m); exit 65;; esac; d=%s; f=$d/agent-$h; ok() { [ $(sha256sum <$1 | cut -c1-64) = $h ]; }; "+
		"if [ -f $f ] && ok $f; then :; else "+
		"mkdir -p $d && t=$(mktemp $d/.new-XXXXXX) || { echo %sto make a file in $d; exit 73; }; "+
		"echo %s$m; read -r n; head -c $n | gzip -dc >$t; "+
		"ok $t || { rm -f $t; echo %sto write the agent to $d, is the disk full; exit 74; }; "+
		"chmod 0755 $t && mv -f $t $f || exit 74; fi; "+
		"exec $f serve %s",
		machineCases(programs), bootstrapMachine, folder, bootstrapFailed, bootstrapNeed, bootstrapFailed, strings.Join(args, " "))
}

// commandLine makes the one command line that starts the agent: as it is for root, else under elevate. marker is what sudo
// says when it wants a password.
func commandLine(elevate []string, marker, script string) string {
	argv := []string{"sh", "-c", `s=$1; shift; if [ $(id -u) = 0 ] || [ $# = 0 ]; then exec sh -c "$s"; fi; exec "$@" sh -c "$s"`, "ferry", script}
	return run.QuoteAll(append(argv, elevated(elevate, marker)...))
}

// identity makes who safe to stand in a command line.
func identity(who string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("@._-", r):
			return r
		}
		return '_'
	}, who)
}
