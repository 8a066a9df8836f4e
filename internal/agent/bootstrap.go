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

// bootstrapScript is what runs as root on the target: it checks the installed agent's hash, asks for the agent on standard
// input where it is missing or damaged, and becomes the agent. It is a single line and has no quote, backslash or
// exclamation mark, so that every login shell passes it on unharmed and sudo's log shows it as it is. Only tools that are
// in every NixOS's system path are used.
func bootstrapScript(folder string, programs []Program, args []string) string {
	var cases strings.Builder
	for _, p := range programs {
		pattern := p.Machine
		switch p.Machine {
		case "i686":
			pattern = "i?86"
		case "aarch64":
			pattern = "aarch64|arm64"
		case "armv7l":
			pattern = "armv7*|armv8l"
		case "armv6l":
			pattern = "armv6*"
		}
		fmt.Fprintf(&cases, "%s) m=%s; h=%s;; ", pattern, p.Machine, p.Hash)
	}
	return fmt.Sprintf("umask 022; case $(uname -m) in %s*) echo %s$(uname -m); exit 65;; esac; d=%s; f=$d/agent-$h; ok() { [ $(sha256sum <$1 | cut -c1-64) = $h ]; }; "+
		"if [ -f $f ] && ok $f; then :; else "+
		"mkdir -p $d && t=$(mktemp $d/.new-XXXXXX) || { echo %sto make a file in $d; exit 73; }; "+
		"echo %s$m; read -r n; head -c $n | gzip -dc >$t; "+
		"ok $t || { rm -f $t; echo %sto write the agent to $d, is the disk full; exit 74; }; "+
		"chmod 0755 $t && mv -f $t $f || exit 74; fi; "+
		"exec $f serve %s",
		cases.String(), bootstrapMachine, folder, bootstrapFailed, bootstrapNeed, bootstrapFailed, strings.Join(args, " "))
}

// commandLine makes the one command line that starts the agent: as it is for root, else under elevate. marker is what sudo
// says when it wants a password.
func commandLine(elevate []string, marker, script string) string {
	elevated := append([]string(nil), elevate...)
	if len(elevated) > 0 && path.Base(elevated[0]) == "sudo" {
		// -S reads the password from standard input, where the agent's protocol follows, so that no terminal is needed.
		elevated = append([]string{elevated[0], "-S", "-p", marker}, elevated[1:]...)
	}
	argv := []string{"sh", "-c", `s=$1; shift; if [ $(id -u) = 0 ] || [ $# = 0 ]; then exec sh -c "$s"; fi; exec "$@" sh -c "$s"`, "ferry", script}
	return run.QuoteAll(append(argv, elevated...))
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
