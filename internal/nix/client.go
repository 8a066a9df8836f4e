package nix

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"ferry/internal/run"
)

// Client runs the nix commands found in PATH. Its methods may run side by side.
type Client struct {
	Runner  *run.Runner
	Options Options

	mu      sync.Mutex
	version *Version // once it is known
	// buildable are the systems for which a test build has gone well.
	buildable map[string]bool

	builds   queue
	validity validity
	keeper   keeper
}

// Options reach every nix command. They are arguments, which other users of this machine can read: no secrets.
type Options struct {
	Substitute *bool       // whether to fetch from substituters; as Nix is configured if nil
	MaxJobs    string      // builds at once on this machine; as configured if empty
	Cores      string      // what a build is told to use; as configured if empty
	Builders   string      // remote builders, in the syntax of nix.conf; as configured if empty
	Settings   [][2]string // names and values of nix.conf
	ShowTrace  bool        // for those who show an [*EvalError]: the whole trace, not only the user's files
	KeepFailed bool        // keep the folder of a failed build
}

func (o Options) args() []string {
	var args []string
	set := func(name, value string) { args = append(args, "--option", name, value) }
	if o.Substitute != nil {
		set("substitute", fmt.Sprint(*o.Substitute))
	}
	for _, s := range [][2]string{{"max-jobs", o.MaxJobs}, {"cores", o.Cores}, {"builders", o.Builders}} {
		if s[1] != "" {
			set(s[0], s[1])
		}
	}
	if o.KeepFailed {
		set("keep-failed", "true")
	}
	for _, s := range o.Settings {
		set(s[0], s[1])
	}
	return args
}

// MissingError means that a nix command is not in PATH.
type MissingError struct {
	Program string
	Err     error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not in PATH: Nix is not installed here", e.Program)
}

// Unwrap gives what os/exec said.
func (e *MissingError) Unwrap() error { return e.Err }

// grace is how long Nix may take to end its builders and to remove their folders when it is told to end.
const grace = 20 * time.Second

// Hints says where Nix comes from.
func (e *MissingError) Hints() []string {
	return []string{installNix(runtime.GOOS)}
}

// command is program with the options, then args.
func (c *Client) command(program string, args ...string) run.Command {
	argv := append([]string{program}, c.Options.args()...)
	return run.Command{Argv: append(argv, args...), Insist: true, Grace: grace}
}

// run runs cmd and turns the absence of Nix, or of its store for this user, into an error of its own.
func (c *Client) run(ctx context.Context, cmd run.Command) error {
	err := c.Runner.Run(ctx, cmd)
	if run.NotFound(err) {
		return &MissingError{Program: cmd.Argv[0], Err: err}
	}
	return storeAccess(err)
}

// output runs cmd and returns its standard output without the newline at the end.
func (c *Client) output(ctx context.Context, cmd run.Command) (string, error) {
	var out bytes.Buffer
	cmd.Out = &out
	err := c.run(ctx, cmd)
	return strings.TrimRight(out.String(), "\n"), err
}

// Add puts the file or folder at path in the store, under its base name, and returns its store path.
func (c *Client) Add(ctx context.Context, path string) (StorePath, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("add %s to the store: %w", path, err)
	}
	if err := checkName(filepath.Base(abs)); err != nil {
		return "", fmt.Errorf("add %s to the store: %w", path, err)
	}
	out, err := c.output(ctx, c.command("nix-store", "--add", abs))
	if err != nil {
		return "", fmt.Errorf("add %s to the store: %w", path, err)
	}
	p, err := ParseStorePath(out)
	if err != nil {
		return "", fmt.Errorf("add %s to the store: %w", path, err)
	}
	return p, nil
}

// NarHash returns the hash of a valid path as "sha256-<base 64>", the narHash of builtins.fetchTree.
func (c *Client) NarHash(ctx context.Context, p StorePath) (string, error) {
	out, err := c.output(ctx, c.command("nix-store", "--query", "--hash", string(p)))
	if err != nil {
		return "", fmt.Errorf("query the hash of %s: %w", p, err)
	}
	sri, err := SRI(out)
	if err != nil {
		return "", fmt.Errorf("query the hash of %s: %w", p, err)
	}
	return sri, nil
}

// Root makes link a symbolic link to p that is a GC root, and the folders above it. p must be valid, and no derivation, which would be
// built; nothing is fetched.
func (c *Client) Root(ctx context.Context, link string, p StorePath) error {
	if p.IsDerivation() {
		return fmt.Errorf("make a GC root: %s is a derivation, which would be built", p)
	}
	link, err := prepareRoot(link)
	if err != nil {
		return fmt.Errorf("make a GC root: %w", err)
	}
	if isRoot(link, p) {
		return nil
	}
	cmd := c.command("nix-store", "--realise", string(p), "--add-root", link, "--indirect", "--option", "substitute", "false")
	if err := c.run(ctx, cmd); err != nil {
		return fmt.Errorf("make %s a GC root for %s: %w", link, p, err)
	}
	return nil
}

// prepareRoot makes link absolute, as nix-store wants it, and the folders above it.
func prepareRoot(link string) (string, error) {
	link, err := filepath.Abs(link)
	if err != nil {
		return "", err
	}
	return link, os.MkdirAll(filepath.Dir(link), 0o755)
}

// isRoot tells whether link is known to keep p. It asks no Nix: the store's state has a link to every indirect root, named by the hash
// of the root's path. If that is not so, or elsewhere, link may be a root nevertheless.
func isRoot(link string, p StorePath) bool {
	link, err := filepath.Abs(link)
	if err != nil {
		return false
	}
	sum := sha1.Sum([]byte(link))
	state := cmp.Or(os.Getenv("NIX_STATE_DIR"), "/nix/var/nix")
	registered, err := os.Readlink(filepath.Join(state, "gcroots", "auto", encodeBase32(sum[:])))
	if err != nil || registered != link {
		return false
	}
	if kept, err := os.Readlink(link); err != nil || kept != string(p) {
		return false
	}
	_, err = os.Lstat(string(p))
	return err == nil
}
