package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"ferry/internal/health"
)

// Node is one machine of the inventory, checked: its strings are safe as arguments and on a terminal.
type Node struct {
	Name          string
	Configuration string   // path of the configuration below the source's root; "" for a flake's
	Attribute     string   // of a flake, the name in nixosConfigurations
	Source        []string // paths below the source's root: only they and what they need are its source; nil: all of it
	OwnPin        bool     // it has a pin of its own, not the inventory's
	System        string   // Nix's name of its platform, as "aarch64-linux"; "": only its evaluation says
	Target        string   // what ssh takes, or "local"
	Declared      bool     // of a flake: the target is written down, and not only the node's name
	Fallbacks     []string // where it is reached if not by Target, tried in this order
	Tags          []string // in the inventory's order
	Elevate       []string // the command that makes a user root, and its arguments; nil if the inventory leaves it open
	PasswordFor   string   // nodes with the same one, and the same user, may share a password; "" is what most have
	Impure        bool     // evaluated impurely on purpose
	Checks        health.Checks
}

// nodeAttributes and inventoryAttributes are what the inventory may say, flakeAttributes what a flake may say of a node.
var (
	nodeAttributes      = []string{"checks", "configuration", "elevate", "impure", "nixpkgs", "passwordFor", "source", "system", "tags", "target"}
	flakeAttributes     = []string{"attribute", "checks", "elevate", "impure", "passwordFor", "tags", "target"}
	inventoryAttributes = []string{"nixpkgs", "nodes", "worldReadable"}
)

// systems are the platforms of Linux that nixpkgs knows.
var systems = []string{
	"aarch64-linux", "armv5tel-linux", "armv6l-linux", "armv7a-linux", "armv7l-linux", "i686-linux", "loongarch64-linux",
	"m68k-linux", "microblaze-linux", "microblazeel-linux", "mips-linux", "mips64-linux", "mips64el-linux", "mipsel-linux",
	"powerpc-linux", "powerpc64-linux", "powerpc64le-linux", "riscv32-linux", "riscv64-linux", "s390-linux", "s390x-linux",
	"x86_64-linux",
}

// maxName bounds a node's name, in bytes: it is part of a store path's name and of file names.
const maxName = 128

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// checkName makes sure that name is harmless wherever it is put: as an argument, in a path, in a unit's name.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name is longer than %d characters", maxName)
	case !namePattern.MatchString(name):
		return fmt.Errorf("a name consists of letters, digits, `-`, `_` and `.`, and starts with a letter or digit")
	}
	return nil
}

// checkTarget makes sure that ssh takes target as a destination, and that it is one line of visible characters.
func checkTarget(target string) error {
	if target == "" {
		return fmt.Errorf("expected a destination for ssh or \"local\", found an empty string")
	}
	if strings.HasPrefix(target, "-") {
		return fmt.Errorf("%s starts with `-`: ssh would take it for an option", printable(target))
	}
	for _, r := range target {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return fmt.Errorf("%s contains a character that no destination has: %q", printable(target), r)
		}
	}
	return nil
}

func checkSystem(system string) error {
	if !slices.Contains(systems, system) {
		return fmt.Errorf("unknown system %s: expected one such as \"x86_64-linux\" or \"aarch64-linux\"", printable(system))
	}
	return nil
}

// nameFromTarget makes a node's name out of the host in target, for a machine that no inventory names.
func nameFromTarget(target string) (string, error) {
	host := target
	if rest, isURL := strings.CutPrefix(host, "ssh://"); isURL {
		host, _, _ = strings.Cut(rest, "/")
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if strings.HasPrefix(host, "[") {
		host, _, _ = strings.Cut(host[1:], "]")
	} else if strings.HasPrefix(target, "ssh://") {
		host, _, _ = strings.Cut(host, ":")
	}
	// An IPv6 address has characters that no name may have.
	name := strings.TrimLeft(strings.NewReplacer(":", "-", "%", "-").Replace(host), "-")
	if err := checkName(name); err != nil {
		return "", &Error{Attribute: "target", Text: "no node name can be made of " + printable(target), Err: err}
	}
	return name, nil
}
