package agent

import (
	"fmt"
	"strings"

	"ferry/internal/run"
)

// installedScript is what runs as the login user first where root is not needed: it becomes the agent if that is installed
// and whole, where nobody but root can change it, and else does nothing. It is as plain as [bootstrapScript].
func installedScript(at place, programs []Program, args []string) string {
	return at.fill("o=$IFS; h=; case $(uname -m) in CASES esac; "+ownership+
		"if [ -d FOLDER ] && d=$(cd -P FOLDER && pwd -P); then f=$d/agent-$h; "+
		"if [ -x $f ] && whole $f; then case $(unowned $d) in ?*) ;; *) exec $f serve ", programs, args) + ";; esac; fi; fi; IFS=$o; set +f"
}

// commandLineTrying is [commandLine] with a script that is tried as the login user first: if it comes to its end, the other
// one runs as root.
func commandLineTrying(first string, elevate []string, marker, script string) string {
	argv := []string{"sh", "-c", `f=$1; s=$2; shift 2; eval "$f"; if [ $(id -u) = 0 ] || [ $# = 0 ]; then exec /bin/sh -c "$s"; fi; exec "$@" /bin/sh -c "$s"`,
		"ferry", first, script}
	return run.QuoteAll(append(argv, elevated(elevate, marker)...))
}

// machineCases are the cases of sh that find the agent for a machine, as m and h, by its name as uname -m says it.
func machineCases(programs []Program) string {
	var cases strings.Builder
	for _, p := range programs {
		fmt.Fprintf(&cases, "%s) m=%s; h=%s;; ", strings.Join(p.machines(), "|"), p.Machine, p.Hash)
	}
	return cases.String()
}

// elevated is elevate as it is called.
func elevated(elevate []string, marker string) []string {
	argv := append([]string(nil), elevate...)
	if len(argv) > 0 && elevateCommand(argv) == "sudo" {
		// -S reads the password from standard input, where the agent's protocol follows, so that no terminal is needed.
		argv = append([]string{argv[0], "-S", "-p", marker}, argv[1:]...)
	}
	return argv
}
