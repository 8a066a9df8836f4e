package agent

import (
	"path"
	"strings"

	"ferry/internal/run"
)

// The lines that the bootstrap script says on its standard output before the agent speaks.
const (
	bootstrapNeed    = "ferry-bootstrap: need "    // the machine, as uname -m says it: the agent for it is not there yet
	bootstrapMachine = "ferry-bootstrap: machine " // uname -m: ferry has no agent for it
	bootstrapFailed  = "ferry-bootstrap: failed "  // what went wrong with putting the agent in place
	bootstrapUnsafe  = "ferry-bootstrap: unsafe "  // OWNER:MODE:NAME:FOLDER: somebody else than root could put another agent there
	bootstrapNoExec  = "ferry-bootstrap: noexec "  // the folder's file system lets no program run
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

// place is where the agent is installed on a target.
type place struct {
	folder string
	// path is the PATH of what runs there as root: folders that are root's alone, wherever the login user's own may lead.
	path string
	// owner is whose the folders have to be, as a number: root.
	owner string
	// top ends the walk up from the folder that looks whose the folders are.
	top string
}

// installation is the place on every target.
var installation = place{
	folder: Folder,
	path: "/run/current-system/sw/bin:/run/wrappers/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin:/usr/sbin:/sbin:" +
		"/run/current-system/sw/sbin:/root/.nix-profile/bin",
	owner: "0",
	top:   "/",
}

// ownership is sh for both scripts. unowned prints the folders from its argument, which has no link in it, up to the top that
// are not root's and root's alone; whole tells whether a file is the agent, and nobody else's who could change it when it has
// been looked at. Without separators of fields nothing has to be quoted.
const ownership = "IFS=; set -f; " +
	"unowned() { p=$1; set -- TOP; until [ $p = TOP ] || [ $p = / ]; do set -- $p $@; p=${p%/*}; p=${p:-/}; done; " +
	"s=$(stat -c %u:%a:%U:%n $@) || { echo unknown:::$d; return; }; echo $s | grep -v ^OWNER:[0-7]*[0145][0145]:; }; " +
	"sum() { [ $(sha256sum <$1 | cut -c1-64) = $h ]; }; " +
	"whole() { [ -f $1 ] && [ $(stat -c %u:%a $1) = OWNER:755 ] && sum $1; }; "

// bootstrapScript is what runs as root on the target: it checks the installed agent's hash, asks for the agent on standard
// input where it is missing or damaged, and becomes the agent. The folder has to be root's alone, all the way up: who may write
// there could put something else in the agent's place after the look at it. It is a single line and has no quote, backslash or
// exclamation mark, so that every login shell passes it on unharmed and sudo's log shows it as it is. Only tools that are
// in every NixOS's system path are used.
func bootstrapScript(at place, programs []Program, args []string) string {
	return at.fill("umask 022; PATH=ITSPATH; export PATH; case $(uname -m) in CASES*) echo "+bootstrapMachine+"$(uname -m); exit 65;; esac; "+
		ownership+
		"real() { d=$(cd -P $1 && pwd -P); u=$(unowned $d); case $u in ?*) echo "+bootstrapUnsafe+"$u; exit 77;; esac; }; "+
		"e=FOLDER; until [ -d $e ]; do e=${e%/*}; e=${e:-/}; done; real $e; "+
		"[ $e = FOLDER ] || { mkdir -p FOLDER || { echo "+bootstrapFailed+"to make FOLDER; exit 73; }; real FOLDER; }; "+
		"f=$d/agent-$h; "+
		"if whole $f; then :; else "+
		"t=$(mktemp $d/.new-XXXXXX) || { echo "+bootstrapFailed+"to make a file in $d; exit 73; }; "+
		"echo "+bootstrapNeed+"$m; read -r n; head -c $n | gzip -dc >$t; "+
		"sum $t || { rm -f $t; echo "+bootstrapFailed+"to write the agent to $d, is the disk full; exit 74; }; "+
		"chmod 0755 $t && mv -f $t $f || exit 74; fi; "+
		"[ -x $f ] || { echo "+bootstrapNoExec+"$d; exit 126; }; "+
		"exec $f serve ", programs, args)
}

// fill puts what the script is about into it.
func (at place) fill(script string, programs []Program, args []string) string {
	return strings.NewReplacer("ITSPATH", at.path, "CASES", machineCases(programs), "FOLDER", at.folder, "OWNER", at.owner, "TOP", at.top).Replace(script) +
		strings.Join(args, " ")
}

// commandLine makes the one command line that starts the agent: as it is for root, else under elevate. marker is what sudo
// says when it wants a password. What runs as root is not looked for in the login user's PATH.
func commandLine(elevate []string, marker, script string) string {
	argv := []string{"sh", "-c", `s=$1; shift; if [ $(id -u) = 0 ] || [ $# = 0 ]; then exec /bin/sh -c "$s"; fi; exec "$@" /bin/sh -c "$s"`, "ferry", script}
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
