package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"ferry/internal/run"
)

// Expression is something to evaluate.
type Expression struct {
	Text string
	// Pure forbids whatever would make the result depend on more than Text: files that are not fetched by hash, the
	// environment, the time, the machine's own system. builtins.fetchTree is there.
	Pure bool
	// Flakes admits builtins.fetchTree to what is not pure.
	Flakes bool
	// Instantiate lets evaluation write to the store: derivations, copied sources, what it fetches or has to build.
	Instantiate bool
	// Log receives, line by line, what evaluation writes for people before it fails or ends: traces and warnings of the
	// configuration, and what is fetched or built on the way. May be nil.
	Log io.Writer
	// Peak, when set, is told how much memory the evaluation has taken at most, in bytes.
	Peak func(bytes int64)
	// Heap, if not 0, is how large the evaluator's heap is from the beginning, in bytes: until that is used no garbage is collected.
	// What the user has set in the environment, this size or the largest, stands.
	Heap int64
	// Begun, when set, is called when evaluation begins, before anything is written to Log.
	Begun func()
}

// interrupted is how Nix calls SIGINT and SIGTERM.
const interrupted = "interrupted by the user"

// What the collector of Nix's evaluator reads the first size of its heap and the largest from. It ends at once if the first is
// above the largest.
const (
	initialHeap = "GC_INITIAL_HEAP_SIZE"
	maximumHeap = "GC_MAXIMUM_HEAP_SIZE"
)

// maxArgument keeps below Linux's limit of 128 KiB for one argument.
const maxArgument = 100 << 10

// Eval returns the value of e, evaluated deeply, as JSON. If the expression is at fault, the error is an [*EvalError].
func (c *Client) Eval(ctx context.Context, e Expression) ([]byte, error) {
	if e.Begun != nil {
		e.Begun()
	}
	cmd := c.evalCommand(e, "--strict", "--json")
	var out bytes.Buffer
	messages := evalMessages{log: e.Log}
	lines := &lineWriter{each: messages.line}
	cmd.Out, cmd.Err = &out, lines
	err := c.run(ctx, cmd)
	lines.end()
	if err == nil {
		messages.release()
		return bytes.TrimRight(out.Bytes(), "\n"), nil
	}
	if eval := messages.fault(ctx, err); eval != nil {
		return nil, eval
	}
	return nil, fmt.Errorf("evaluate: %w", err)
}

// evalCommand is the command that evaluates e.
func (c *Client) evalCommand(e Expression, more ...string) run.Command {
	// The whole trace is always asked for: what Nix prints without it leaves out the user's own files.
	args := append([]string{"--eval", "--show-trace"}, more...)
	if e.Instantiate {
		args = append(args, "--read-write-mode")
	}
	if e.Pure {
		args = append(args, "--option", "pure-eval", "true")
	}
	if e.Pure || e.Flakes {
		// The feature for fetchTree came with flakes and is still implied by them.
		args = append(args, "--option", "extra-experimental-features", "flakes")
	}
	var cmd run.Command
	if len(e.Text) <= maxArgument {
		cmd = c.command("nix-instantiate", append(args, "-E", e.Text)...)
	} else {
		cmd = c.command("nix-instantiate", append(args, "-")...)
		cmd.In = strings.NewReader(e.Text)
	}
	cmd.Peak = e.Peak
	_, first := os.LookupEnv(initialHeap)
	if _, largest := os.LookupEnv(maximumHeap); e.Heap > 0 && !first && !largest {
		cmd.Env = []string{initialHeap + "=" + strconv.FormatInt(e.Heap, 10)}
	}
	return cmd
}

// InstantiateSystem evaluates a NixOS configuration for system in the way of plain nixos-rebuild, from a tree of nixpkgs, and
// gives the derivation of its toplevel. What Nix says for people goes to log, which may be nil.
func (c *Client) InstantiateSystem(ctx context.Context, nixpkgs, configuration, system string, log io.Writer) (StorePath, error) {
	cmd := c.command("nix-instantiate", "<nixpkgs/nixos>", "-A", "system", "--argstr", "system", system,
		"-I", "nixpkgs="+nixpkgs, "-I", "nixos-config="+configuration)
	// It would take the place of nixos-config.
	cmd.Env, cmd.Err = []string{"NIXOS_CONFIG="}, log
	p, err := c.instantiateKept(ctx, cmd)
	if err != nil {
		return "", fmt.Errorf("evaluate as nixos-rebuild does: %w", err)
	}
	return p, nil
}

// InstantiateFile evaluates the NixOS configuration name in the set that a Nix file evaluates to, and gives the derivation of its toplevel.
// What Nix says for people goes to log, which may be nil.
func (c *Client) InstantiateFile(ctx context.Context, file, name string, log io.Writer) (StorePath, error) {
	cmd := c.command("nix-instantiate", "--expr", "(import "+Quote(file)+")."+Quote(name)+".config.system.build.toplevel")
	cmd.Err = log
	p, err := c.instantiateKept(ctx, cmd)
	if err != nil {
		return "", fmt.Errorf("evaluate %s: %w", file, err)
	}
	return p, nil
}

// BuildFile builds what a Nix file evaluates to and makes link a GC root for it. What Nix says for people goes to log, which
// may be nil.
func (c *Client) BuildFile(ctx context.Context, file, link string, log io.Writer) (StorePath, error) {
	cmd := c.command("nix-build", file, "--out-link", link)
	cmd.Err = log
	out, err := c.output(ctx, cmd)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", file, err)
	}
	p, err := ParseStorePath(out)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", file, err)
	}
	return p, nil
}

// evalMessages separates what evaluation writes before its error from the error, which is everything from the first line
// that starts with "error:".
type evalMessages struct {
	log   io.Writer
	head  strings.Builder // the start of the error, up to half the limit
	tail  run.Tail        // its end
	last  string
	begun bool
}

// maxTrace is how much of a trace is kept, in bytes: half from its start, half from its end.
const maxTrace = 2 << 20

func (m *evalMessages) line(line string) {
	if !m.begun {
		if strings.Contains(line, interrupted) && strings.Contains(line, "(ignored)") {
			// What Nix was at when it was told to end is no news to who told it.
			return
		}
		if !startsError(line) {
			m.write(line + "\n")
			return
		}
		m.begun = true
		m.tail.Limit = maxTrace / 2
	}
	m.last = line
	if m.head.Len() < maxTrace/2 {
		m.head.WriteString(line + "\n")
		return
	}
	_, _ = m.tail.Write([]byte(line + "\n"))
}

// fault is the evaluation's own error if that is what made Nix end with err, and nil if it is something else.
func (m *evalMessages) fault(ctx context.Context, err error) error {
	var failed *run.Error
	var access *AccessError
	if !errors.As(err, &failed) || errors.As(err, &access) || ctx.Err() != nil || !m.begun {
		return nil
	}
	if strings.Contains(m.last, interrupted) {
		// A Ctrl-C reaches Nix at the same time as ferry, and may be noticed there first.
		return fmt.Errorf("evaluate: %w", context.Canceled)
	}
	return &EvalError{Trace: m.trace(), err: err}
}

func (m *evalMessages) trace() string { return m.head.String() + m.tail.String() }

// release is called when evaluation has not failed after all: something else looked like an error.
func (m *evalMessages) release() {
	if m.begun {
		m.write(m.trace())
	}
}

func (m *evalMessages) write(s string) {
	if m.log != nil {
		_, _ = io.WriteString(m.log, s)
	}
}
