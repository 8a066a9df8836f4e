package nix

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// Part is one of several expressions that one process evaluates. Its functions are called one at a time, and must not wait.
type Part struct {
	Text string
	// Log and Begun are as those of an [Expression].
	Log   io.Writer
	Begun func()
	// Done is told the value, as JSON, as soon as it is known, or what is wrong with the expression: an [*EvalError].
	Done func(value []byte, err error)
}

// EvalEach evaluates parts in one process, one after the other, in the way that e says, whose Text, Log and Begun are not used. The
// process ends at the first part that is at fault. Those after it are never Done, and are to be evaluated again. So are all that are not
// Done if the process fails for another reason, which is the error.
func (c *Client) EvalEach(ctx context.Context, e Expression, parts []Part) error {
	each := eachPart{parts: parts, mark: "ferry-" + rand.Text() + " ", current: -1}
	each.messages.log = &each.preamble
	// With --json, Nix holds all values back until it ends. Without it every value is written at once, as Nix writes a string.
	var text strings.Builder
	var args []string
	text.WriteString("{\n")
	for i, p := range parts {
		fmt.Fprintf(&text, "  part%d = builtins.trace \"%s%d\" (builtins.toJSON (\n%s\n));\n", i, each.mark, i, p.Text)
		args = append(args, "-A", "part"+strconv.Itoa(i))
	}
	text.WriteString("}\n")
	e.Text = text.String()
	cmd := c.evalCommand(e, args...)
	values, lines := &lineWriter{each: each.value}, &lineWriter{each: each.line}
	cmd.Out, cmd.Err = values, lines
	err := c.run(ctx, cmd)
	// A last line of values that does not end is one that a process was killed in.
	lines.end()
	return each.end(ctx, err)
}

// eachPart gives the values and the messages of a process to the parts that they belong to. A trace in front of each part says on the
// messages' way which one they are about, so a part is done when its value is there and the next one's trace is.
type eachPart struct {
	parts []Part
	mark  string // what a trace begins with, before the part's number

	mu       sync.Mutex
	preamble bytes.Buffer // what Nix says before the first part: of its settings, for example. It belongs to all of them
	messages evalMessages // of the current part
	current  int          // -1 before the first
	values   [][]byte
	garbled  bool // something came that is no value
	done     int  // how many were told their value
}

// value takes a line of output. What is no whole string, one that is longer than a line may be for example, is no value, and neither is
// what comes after it.
func (p *eachPart) value(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, begins := strings.CutPrefix(line, `"`)
	text, ends := strings.CutSuffix(text, `"`)
	if p.garbled = p.garbled || !begins || !ends; !p.garbled {
		p.values = append(p.values, []byte(unescaped(text)))
	}
	p.tell(p.current)
}

// line takes a line of messages.
func (p *eachPart) line(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest, ours := strings.CutPrefix(line, "trace: "+p.mark)
	next, err := strconv.Atoi(rest)
	if !ours || err != nil || next != p.current+1 || next >= len(p.parts) {
		p.messages.line(line)
		return
	}
	p.messages.release()
	p.current = next
	part := p.parts[next]
	p.messages = evalMessages{log: part.Log}
	p.tell(next)
	if part.Begun != nil {
		part.Begun()
	}
	if part.Log != nil {
		_, _ = part.Log.Write(p.preamble.Bytes())
	}
}

// tell tells the parts before end their values.
func (p *eachPart) tell(end int) {
	for ; p.done < min(end, len(p.values)); p.done++ {
		p.parts[p.done].Done(p.values[p.done], nil)
	}
}

// end tells what is left to tell when the process has ended with err.
func (p *eachPart) end(ctx context.Context, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.messages.release()
	}
	p.tell(len(p.parts))
	if err == nil {
		if p.done < len(p.parts) {
			return fmt.Errorf("evaluate: Nix gave %d values of %d", p.done, len(p.parts))
		}
		return nil
	}
	fault := p.messages.fault(ctx, err)
	if fault == nil || p.current < 0 || p.done != p.current {
		return fmt.Errorf("evaluate: %w", err)
	}
	p.parts[p.current].Done(nil, fault)
	return nil
}
