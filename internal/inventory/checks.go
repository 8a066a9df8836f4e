package inventory

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"ferry/internal/health"
)

// What the attribute `checks` and the sets in it may say.
var (
	checksAttributes  = []string{"commands", "http", "units"}
	unitsAttributes   = []string{"failed"}
	httpAttributes    = []string{"contains", "from", "status", "timeout", "url"}
	commandAttributes = []string{"run", "timeout"}
)

// Examples for those who wrote something else.
const (
	unitsExample    = `units.failed = "none";`
	httpExample     = `http = [ { url = "http://web1/healthz"; } ];`
	commandsExample = `commands = [ { run = [ "systemctl" "is-active" "nginx" ]; } ];`
)

// checks decodes the attribute `checks` and fills in what it leaves open.
func (d decoder) checks() (health.Checks, error) {
	c := health.Default()
	v, given := d.attributes["checks"]
	if !given {
		return c, nil
	}
	all := d.set("checks", v, checksAttributes, httpExample)
	if v, given := all.attributes["units"]; given {
		units := d.set("checks.units", v, unitsAttributes, unitsExample)
		readText(&units, "failed", &c.Units)
		all.err = units.err
	}
	all.each("http", httpExample, func(path string, v description) error {
		h, err := d.request(path, v)
		c.HTTP = append(c.HTTP, h)
		return err
	})
	all.each("commands", commandsExample, func(path string, v description) error {
		command, err := d.command(path, v)
		c.Commands = append(c.Commands, command)
		return err
	})
	if all.err != nil {
		return c, all.err
	}
	var invalid *health.InvalidError
	if err := c.Validate(); errors.As(err, &invalid) {
		return c, d.fail("checks."+invalid.Path, invalid.Text, didYouMean(invalid.Found, invalid.Known)...)
	}
	return c, nil
}

// request decodes an element of `checks.http`.
func (d decoder) request(path string, v description) (health.HTTP, error) {
	h := health.HTTP{Status: health.DefaultStatus, From: health.Here, Timeout: health.DefaultHTTPTimeout}
	f := d.set(path, v, httpAttributes, httpExample)
	f.need("url", httpExample)
	readText(&f, "url", &h.URL)
	readNumber(&f, "status", &h.Status)
	readText(&f, "from", &h.From)
	readNumber(&f, "timeout", &h.Timeout)
	readText(&f, "contains", &h.Contains)
	return h, f.err
}

// command decodes an element of `checks.commands`.
func (d decoder) command(path string, v description) (health.Command, error) {
	c := health.Command{Timeout: health.DefaultCommandTimeout}
	f := d.set(path, v, commandAttributes, commandsExample)
	f.need("run", commandsExample)
	if argv, given := f.attributes["run"]; given && argv.Type != "list" {
		return c, d.fail(path+".run", "expected a list with a command and its arguments, found "+argv.found(), commandsExample)
	}
	for i, item := range f.attributes["run"].Items {
		// A path is one in the source, which comes to the target as well, or one that the target has.
		word, err := item.text()
		if err != nil || item.Type != "string" && item.Type != "path" {
			return c, d.fail(path+".run", fmt.Sprintf("expected a string as element %d, found %s", i+1, item.found()))
		}
		c.Run = append(c.Run, word)
	}
	readNumber(&f, "timeout", &c.Timeout)
	return c, f.err
}

// fields are a set below `checks` and the first thing that is wrong with it.
type fields struct {
	decoder    decoder
	path       string
	attributes map[string]description
	err        error
}

// set reads the set at path, which may have the attributes known.
func (d decoder) set(path string, v description, known []string, example string) fields {
	f := fields{decoder: d, path: path}
	if v.Type != "set" {
		f.err = d.fail(path, "expected an attribute set, found "+v.found(), example)
		return f
	}
	for _, a := range slices.Sorted(maps.Keys(v.Attributes)) {
		if !slices.Contains(known, a) {
			f.err = d.fail(path+"."+printable(a), "unknown attribute", orKnown(didYouMean(a, known), known)...)
			return f
		}
	}
	f.attributes = v.Attributes
	return f
}

// need makes sure that an attribute is there.
func (f *fields) need(name, example string) {
	if _, given := f.attributes[name]; !given && f.err == nil {
		f.err = f.decoder.fail(f.path+"."+name, "missing", example)
	}
}

// each decodes the elements of a list of sets, if it is there.
func (f *fields) each(name, example string, decode func(path string, v description) error) {
	list, given := f.attributes[name]
	if !given || f.err != nil {
		return
	}
	path := f.path + "." + name
	if list.Type != "list" {
		f.err = f.decoder.fail(path, "expected a list of attribute sets, found "+list.found(), example)
		return
	}
	for i, item := range list.Items {
		if f.err = decode(fmt.Sprintf("%s[%d]", path, i), item); f.err != nil {
			return
		}
	}
}

// readText reads a string, if it is there.
func readText[T ~string](f *fields, name string, field *T) {
	v, given := f.attributes[name]
	if !given || f.err != nil {
		return
	}
	s, err := v.text()
	if err != nil || v.Type != "string" {
		f.err = f.decoder.fail(f.path+"."+name, "expected a string, found "+v.found())
		return
	}
	*field = T(s)
}

// readNumber reads an integer, if it is there.
func readNumber[T ~int](f *fields, name string, field *T) {
	v, given := f.attributes[name]
	if !given || f.err != nil {
		return
	}
	n, err := strconv.Atoi(string(v.Value))
	if err != nil || v.Type != "int" {
		f.err = f.decoder.fail(f.path+"."+name, "expected an integer, found "+v.found())
		return
	}
	*field = T(n)
}
