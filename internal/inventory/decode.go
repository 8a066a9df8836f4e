package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// description is a Nix value as inventory.nix describes it.
type description struct {
	Type       string                 `json:"type"`
	Value      json.RawMessage        `json:"value"`
	Items      []description          `json:"items"`
	Attributes map[string]description `json:"attributes"`
}

// shape is the outline of the inventory.
type shape struct {
	Type             string   `json:"type"`
	UnknownArguments []string `json:"unknownArguments"`
	Attributes       []string `json:"attributes"`
	Nodes            *struct {
		Type  string   `json:"type"`
		Names []string `json:"names"`
	} `json:"nodes"`
}

// listing is the whole answer of inventory.nix.
type listing struct {
	Shape         shape                  `json:"shape"`
	WorldReadable description            `json:"worldReadable"`
	Nodes         map[string]description `json:"nodes"`
}

// check finds what is wrong with the inventory as a whole.
func (s shape) check(file string) error {
	if len(s.UnknownArguments) > 0 {
		name := s.UnknownArguments[0]
		return &Error{Text: fmt.Sprintf("%s: unknown argument `%s`: the inventory's function is given `source` and `system`", file, name),
			Advice: didYouMean(name, []string{"source", "system"})}
	}
	if s.Type != "set" {
		return &Error{Text: fmt.Sprintf("%s: expected an attribute set with `nodes`, found %s", file, article(s.Type))}
	}
	for _, a := range s.Attributes {
		if !slices.Contains(inventoryAttributes, a) {
			return &Error{Text: file, Err: &Error{Attribute: printable(a), Text: "unknown attribute"},
				Advice: orKnown(didYouMean(a, inventoryAttributes), inventoryAttributes)}
		}
	}
	switch {
	case s.Nodes == nil:
		return &Error{Text: file + ": no attribute `nodes`",
			Advice: []string{"nodes.web1 = { configuration = ./web1.nix; target = \"alice@web1\"; };"}}
	case s.Nodes.Type != "set":
		return &Error{Text: fmt.Sprintf("%s: attribute `nodes`: expected an attribute set, found %s", file, article(s.Nodes.Type))}
	}
	for _, n := range s.Nodes.Names {
		if err := checkName(n); err != nil {
			return &Error{Node: printable(n), Err: err, Advice: []string{"rename it; how it is reached is said by `target`"}}
		}
	}
	return nil
}

// decoder turns one node's description into a Node.
type decoder struct {
	name         string
	attributes   map[string]description
	system       string // the default: the building machine's
	hasTopPin    bool
	flake        bool // the node is a flake's, which says itself what it is made from
	locateConfig func(value string) (rel string, err error)
	locate       func(value string) (rel string, err error)
}

func (d decoder) fail(attribute, text string, advice ...string) error {
	return &Error{Node: d.name, Attribute: attribute, Text: text, Advice: advice}
}

// node decodes and checks everything.
func (d decoder) node() (Node, error) {
	n := Node{Name: d.name, System: d.system, Target: d.name}
	attributes := nodeAttributes
	if d.flake {
		attributes = flakeAttributes
	}
	for _, a := range slices.Sorted(maps.Keys(d.attributes)) {
		if !slices.Contains(attributes, a) {
			return n, d.fail(printable(a), "unknown attribute", orKnown(didYouMean(a, attributes), attributes)...)
		}
	}
	if d.flake {
		_, n.Declared = d.attributes["target"]
		n.Attribute = d.name
		if err := d.text("attribute", &n.Attribute, func(string) error { return nil }); err != nil {
			return n, err
		}
		return d.reached(n)
	}
	var err error
	if n.Configuration, err = d.configuration(); err != nil {
		return n, err
	}
	if n.Source, err = d.source(); err != nil {
		return n, err
	}
	if _, n.OwnPin = d.attributes["nixpkgs"]; !n.OwnPin && !d.hasTopPin {
		return n, d.fail("nixpkgs", "missing, and the inventory has none for all nodes",
			`nixpkgs = fetchTarball { url = "https://…"; sha256 = "…"; };`)
	}
	if err := d.text("system", &n.System, checkSystem); err != nil {
		if err.Err != nil {
			err.Advice = didYouMean(n.System, systems)
		}
		return n, err
	}
	return d.reached(n)
}

// reached decodes how a node is reached and looked after.
func (d decoder) reached(n Node) (Node, error) {
	if err := d.targets(&n); err != nil {
		return n, err
	}
	var err error
	if n.Tags, err = d.tags(); err != nil {
		return n, err
	}
	if n.Elevate, err = d.elevate(); err != nil {
		return n, err
	}
	if err := d.text("passwordFor", &n.PasswordFor, checkName); err != nil {
		if err.Err != nil {
			err.Advice = []string{`passwordFor = "db";`}
		}
		return n, err
	}
	if v, given := d.attributes["impure"]; given {
		if v.Type != "bool" {
			return n, d.fail("impure", "expected true or false, found "+v.found())
		}
		n.Impure = string(v.Value) == "true"
	}
	n.Checks, err = d.checks()
	return n, err
}

func (d decoder) configuration() (string, error) {
	v, given := d.attributes["configuration"]
	if !given {
		return "", d.fail("configuration", "missing", "configuration = ./"+d.name+".nix;")
	}
	if v.Type != "path" && v.Type != "string" {
		return "", d.fail("configuration", "expected the path of a NixOS configuration, found "+v.found(),
			"put the configuration in a file: configuration = ./"+d.name+".nix;")
	}
	value, err := v.text()
	if err != nil {
		return "", d.fail("configuration", err.Error())
	}
	if !strings.HasPrefix(value, "/") {
		return "", d.fail("configuration", "expected a path, found "+v.found(), "configuration = ./"+strings.TrimPrefix(value, "./")+";")
	}
	rel, err := d.locateConfig(value)
	var e *Error
	if errors.As(err, &e) {
		e.Node, e.Attribute = d.name, "configuration"
	}
	return rel, err
}

const sourceExample = "source = [ ./common ./web1 ];"

// source reads the paths that the node's source is narrowed to; nil if it is not.
func (d decoder) source() ([]string, error) {
	v, given := d.attributes["source"]
	if !given {
		return nil, nil
	}
	if v.Type != "list" {
		return nil, d.fail("source", "expected a list of paths, found "+v.found(), sourceExample)
	}
	paths := []string{}
	for i, item := range v.Items {
		value, err := item.text()
		if err != nil || item.Type != "path" && item.Type != "string" || !strings.HasPrefix(value, "/") {
			return nil, d.fail("source", fmt.Sprintf("expected a path as element %d, found %s", i+1, item.found()), sourceExample)
		}
		rel, err := d.locate(value)
		var e *Error
		if errors.As(err, &e) {
			e.Node, e.Attribute = d.name, "source"
		}
		switch {
		case err != nil:
			return nil, err
		case rel == ".":
			// All of it: that is no narrowing.
			return nil, nil
		}
		paths = append(paths, rel)
	}
	return paths, nil
}

// text reads the string attribute into field, if it is given, and checks it.
func (d decoder) text(attribute string, field *string, check func(string) error) *Error {
	v, given := d.attributes[attribute]
	if !given {
		return nil
	}
	e := &Error{Node: d.name, Attribute: attribute}
	if v.Type != "string" {
		e.Text = "expected a string, found " + v.found()
		return e
	}
	value, err := v.text()
	if err == nil {
		*field = value
		err = check(value)
	}
	if err != nil {
		e.Err = err
		return e
	}
	return nil
}

// targets reads one target, or a list of them that are tried in order.
func (d decoder) targets(n *Node) error {
	v := d.attributes["target"]
	if v.Type != "list" {
		if err := d.text("target", &n.Target, checkTarget); err != nil {
			return err
		}
		return nil
	}
	list, err := d.strings("target", v, checkTarget)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return d.fail("target", "expected a string or a list of strings, found an empty list", `target = [ "web1.lan" "web1.example.org" ];`)
	case len(list) > 1 && slices.Contains(list, "local"):
		return d.fail("target", `"local" is always reached: it cannot be one of several`)
	}
	n.Target, n.Fallbacks = list[0], list[1:]
	return nil
}

func (d decoder) tags() ([]string, error) {
	v, given := d.attributes["tags"]
	if !given {
		return nil, nil
	}
	if v.Type != "list" {
		return nil, d.fail("tags", "expected a list of strings, found "+v.found(), `tags = [ "home" "edge" ];`)
	}
	return d.strings("tags", v, checkName)
}

// elevators are the commands that can be named by one word.
var elevators = []string{"doas", "sudo"}

func (d decoder) elevate() ([]string, error) {
	v, given := d.attributes["elevate"]
	switch {
	case !given:
		return nil, nil
	case v.Type == "string":
		word, err := v.text()
		if err != nil {
			return nil, d.fail("elevate", err.Error())
		}
		if !slices.Contains(elevators, word) {
			return nil, d.fail("elevate", "expected \"sudo\", \"doas\" or a list with a command and its arguments, found "+v.found(),
				didYouMean(word, elevators)...)
		}
		return []string{word}, nil
	case v.Type != "list" || len(v.Items) == 0:
		return nil, d.fail("elevate", "expected \"sudo\", \"doas\" or a list with a command and its arguments, found "+v.found())
	}
	argv, err := d.strings("elevate", v, checkWord)
	if err == nil && (argv[0] == "" || strings.HasPrefix(argv[0], "-")) {
		return nil, d.fail("elevate", "expected a command as the list's first element, found "+v.Items[0].found())
	}
	return argv, err
}

// checkWord accepts what can be an argument of a command that is shown to people.
func checkWord(s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }) {
		return fmt.Errorf("%s contains a control character", printable(s))
	}
	return nil
}

func (d decoder) strings(attribute string, v description, check func(string) error) ([]string, error) {
	list := make([]string, 0, len(v.Items))
	for i, item := range v.Items {
		if item.Type != "string" {
			return nil, d.fail(attribute, fmt.Sprintf("expected a string as element %d, found %s", i+1, item.found()))
		}
		s, err := item.text()
		if err == nil {
			err = check(s)
		}
		if err != nil {
			return nil, d.fail(attribute, fmt.Sprintf("element %d, %s: %s", i+1, printable(s), err))
		}
		list = append(list, s)
	}
	return list, nil
}

// text is the value of a string or path.
func (v description) text() (string, error) {
	var s string
	if err := json.Unmarshal(v.Value, &s); err != nil {
		return "", fmt.Errorf("expected a string: %w", err)
	}
	return s, nil
}

// found says what v is, for a message: its type and, if it is short, its value.
func (v description) found() string {
	switch v.Type {
	case "string", "path":
		if s, err := v.text(); err == nil && len(s) <= 80 {
			return "the " + v.Type + " " + fmt.Sprintf("%q", s)
		}
	case "int", "float", "bool":
		return string(v.Value)
	case "list":
		if len(v.Items) == 0 {
			return "an empty list"
		}
	}
	return article(v.Type)
}

// article is a Nix type's name for a message.
func article(typ string) string {
	switch typ {
	case "set":
		return "an attribute set"
	case "lambda":
		return "a function"
	case "int":
		return "an integer"
	case "null":
		return "null"
	}
	return "a " + typ
}

// orKnown is hints, or the list of known names if there are none.
func orKnown(hints, known []string) []string {
	if len(hints) > 0 {
		return hints
	}
	return []string{"known are " + strings.Join(known, ", ")}
}
