// Package health is what a node must answer after a switch, and asking it: HTTP requests, made from here or from the node
// itself, and commands that run there as root. The node's units are judged there, by what [Checks] says of them.
package health

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"ferry/internal/prose"
)

// Checks are what a node must answer. They come from the inventory, and are kept on the target as JSON for a ferry that
// follows a deployment it did not begin; [Parse] reads them there.
type Checks struct {
	Units    UnitPolicy `json:"units"`
	HTTP     []HTTP     `json:"http,omitempty"`
	Commands []Command  `json:"commands,omitempty"`
}

// UnitPolicy says what units in the failed state mean after a switch.
type UnitPolicy string

// The policies.
const (
	NoNew  UnitPolicy = "no-new" // none may fail that did not fail before
	None   UnitPolicy = "none"   // none may be in the failed state
	Ignore UnitPolicy = "ignore" // they are told and change nothing
)

// HTTP is a GET request and what its answer has to be. A redirect is an answer, and not followed.
type HTTP struct {
	URL     string  `json:"url"`
	Status  int     `json:"status"`
	From    Place   `json:"from"`
	Timeout Seconds `json:"timeout"` // until then it is tried again: a service may need a moment to start
	// Contains has to be in the first [MaxBody] bytes of the body; "" if all the same.
	Contains string `json:"contains,omitempty"`
}

// Command is a command that has to end with status 0 on the target. It runs as root, once.
type Command struct {
	Run     []string `json:"run"`
	Timeout Seconds  `json:"timeout"`
}

// Place is where a request is made from.
type Place string

// The places.
const (
	Here   Place = "here"   // this machine: with its names, routes and certificates
	Target Place = "target" // the node itself: with its names and routes, and this machine's certificates
)

// Seconds is a time limit.
type Seconds int

// Duration is s as Go has it.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// What holds where the inventory says nothing.
const (
	DefaultStatus         = 200
	DefaultHTTPTimeout    = Seconds(10)
	DefaultCommandTimeout = Seconds(20)
)

// Limits of what may be asked for.
const (
	MaxTimeout = Seconds(600)
	maxChecks  = 30      // of each kind
	maxWords   = 4 << 10 // bytes of a command with all its arguments, or of another text: all of them travel in one frame
)

// MaxBody is how much of an answer's body is read, in bytes.
const MaxBody = 1 << 20

// Default is what a node without checks is held to.
func Default() Checks { return Checks{Units: NoNew} }

// Empty tells whether there is nothing to ask: the units are judged all the same.
func (c Checks) Empty() bool { return len(c.HTTP) == 0 && len(c.Commands) == 0 }

// grace is what a check may take besides its own time: to be sent there, to be ended, and to be told of.
const grace = 5 * time.Second

// Timeout is how long [Checks.Run] takes at most while the connection is there. Requests are made side by side, and beside
// the commands, which run one after another.
func (c Checks) Timeout() time.Duration {
	var requests, commands time.Duration
	for _, h := range c.HTTP {
		requests = max(requests, h.Timeout.Duration()+grace)
	}
	for _, command := range c.Commands {
		commands += command.Timeout.Duration() + grace
	}
	return max(requests, commands)
}

// Parse reads checks as JSON has them. They are as [Checks.Validate] wants them.
func Parse(text []byte) (Checks, error) {
	var c Checks
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Checks{}, fmt.Errorf("checks: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Checks{}, fmt.Errorf("checks: more follows them")
	}
	return c, c.Validate()
}

// InvalidError is something in checks that cannot be.
type InvalidError struct {
	Path  string   // where, as the inventory spells it: http[0].status
	Text  string   // what is wrong
	Found string   // a word that is none of Known; "" if it is not about one
	Known []string // the words that can stand there
}

func (e *InvalidError) Error() string { return "checks." + e.Path + ": " + e.Text }

// Validate makes sure that everything in c can be asked. A failure is an [*InvalidError].
func (c Checks) Validate() error {
	if err := oneOf("units.failed", string(c.Units), string(Ignore), string(NoNew), string(None)); err != nil {
		return err
	}
	for _, list := range []struct {
		name   string
		length int
	}{{"http", len(c.HTTP)}, {"commands", len(c.Commands)}} {
		if list.length > maxChecks {
			return &InvalidError{Path: list.name, Text: fmt.Sprintf("more than %d checks", maxChecks)}
		}
	}
	for i, h := range c.HTTP {
		if err := h.validate(fmt.Sprintf("http[%d].", i)); err != nil {
			return err
		}
	}
	for i, command := range c.Commands {
		if err := command.validate(fmt.Sprintf("commands[%d].", i)); err != nil {
			return err
		}
	}
	return nil
}

func (h HTTP) validate(path string) error {
	if text := checkURL(h.URL); text != "" {
		return &InvalidError{Path: path + "url", Text: text}
	}
	if h.Status < 200 || h.Status > 599 {
		return &InvalidError{Path: path + "status", Text: fmt.Sprintf("expected a status of HTTP from 200 to 599, found %d", h.Status)}
	}
	if err := oneOf(path+"from", string(h.From), string(Here), string(Target)); err != nil {
		return err
	}
	if len(h.Contains) > maxWords {
		return &InvalidError{Path: path + "contains", Text: fmt.Sprintf("longer than %d bytes", maxWords)}
	}
	return h.Timeout.validate(path)
}

// checkURL says what is wrong with a URL, "" if nothing is.
func checkURL(s string) string {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return "expected a URL, found an empty string"
	case len(s) > maxWords:
		return fmt.Sprintf("longer than %d bytes", maxWords)
	case err != nil || u.Opaque != "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return fmt.Sprintf("%q is not a URL", prose.Cut(s, shown))
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("expected a URL that begins with http:// or https://, found %q", prose.Cut(s, shown))
	case u.User != nil:
		// Not shown again.
		return "a user or password has no place in it: the inventory can be read by everyone"
	case u.Hostname() == "":
		return fmt.Sprintf("%q names no host", prose.Cut(s, shown))
	}
	return ""
}

func (c Command) validate(path string) error {
	size := 0
	for i, word := range c.Run {
		size += len(word) + 1
		if strings.IndexByte(word, 0) >= 0 {
			return &InvalidError{Path: path + "run", Text: fmt.Sprintf("element %d contains a NUL byte", i+1)}
		}
	}
	switch {
	case len(c.Run) == 0:
		return &InvalidError{Path: path + "run", Text: "expected a command and its arguments, found an empty list"}
	case c.Run[0] == "":
		return &InvalidError{Path: path + "run", Text: "expected a command as the list's first element, found an empty string"}
	case size > maxWords:
		return &InvalidError{Path: path + "run", Text: fmt.Sprintf("longer than %d bytes", maxWords)}
	}
	return c.Timeout.validate(path)
}

func (s Seconds) validate(path string) error {
	if s < 1 || s > MaxTimeout {
		return &InvalidError{Path: path + "timeout", Text: fmt.Sprintf("expected a number of seconds from 1 to %d, found %d", MaxTimeout, s)}
	}
	return nil
}

func oneOf(path, word string, known ...string) error {
	quoted := make([]string, len(known))
	for i, k := range known {
		if word == k {
			return nil
		}
		quoted[i] = fmt.Sprintf("%q", k)
	}
	text := fmt.Sprintf("expected %s or %s, found the string %q", strings.Join(quoted[:len(quoted)-1], ", "), quoted[len(quoted)-1], prose.Cut(word, shown))
	return &InvalidError{Path: path, Text: text, Found: word, Known: known}
}

// shown is how many characters are shown of a text that can be long.
const shown = 100
