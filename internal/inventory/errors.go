package inventory

import (
	"errors"
	"strconv"
	"strings"
)

// Error is something wrong with the inventory, what it names, or the evaluation of one node.
type Error struct {
	Node      string   // the node it is about; "" if it is about the whole inventory
	Attribute string   // the attribute it is about, as the inventory spells it; "" if none
	Text      string   // what is wrong; "" if Err says it
	Advice    []string // what to do about it
	Err       error    // the cause; may be nil
	// Trace is where in the user's own files an evaluation failed: lines ready to be printed, nearest to the error first.
	Trace []string

	refused []string // the files that must not get into the store
	failure bool     // the inventory is right, what it describes failed
}

// Error says node, attribute and what is wrong.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Node != "" {
		b.WriteString("node " + e.Node + ": ")
	}
	if e.Attribute != "" {
		b.WriteString("attribute `" + e.Attribute + "`: ")
	}
	switch {
	case e.Text != "" && e.Err != nil:
		b.WriteString(e.Text + ": " + e.Err.Error())
	case e.Text != "":
		b.WriteString(e.Text)
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hints are things to do about the error, the best first.
func (e *Error) Hints() []string { return e.Advice }

// Output is where in the user's own files it went wrong.
func (e *Error) Output() []string { return e.Trace }

// Usage tells whether the inventory or the way ferry was called is wrong (exit code 10), rather than something that it
// describes: a configuration that does not evaluate is not a usage error.
func (e *Error) Usage() bool { return !e.failure }

// failed is an error of what a right inventory describes.
func failed(node string, err error, advice ...string) *Error {
	return &Error{Node: node, Err: err, Advice: advice, failure: true}
}

// at adds node to an error that does not name one yet.
func at(node string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Node == "" {
		named := *e
		named.Node = node
		return &named
	}
	return err
}

// Unnamed is err without the node's name, for those who say it themselves.
func Unnamed(err error, node string) error {
	var e *Error
	if errors.As(err, &e) && e.Node == node {
		unnamed := *e
		unnamed.Node = ""
		return &unnamed
	}
	return err
}

// printable is s as it can stand in a message: quoted when a name holds something that is not plain text.
func printable(s string) string {
	q := strconv.Quote(s)
	if s != "" && q == `"`+s+`"` && !strings.ContainsAny(s, " ") {
		return s
	}
	return q
}
