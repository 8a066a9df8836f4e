// Package fleet_test proves deployments of several nodes on real targets, all at once.
package fleet_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// crew is a builder and several targets, each a node of one inventory.
type crew struct {
	*site.Site
	nodes []*member
}

// member is a node of the crew. What is set of it is in the inventory.
type member struct {
	name       string
	site       *site.Site
	target     string // in place of alice at the target
	attributes string
	more       string // in its configuration
}

// newCrew starts targets for the nodes with these names.
func newCrew(t *testing.T, names ...string) *crew {
	t.Helper()
	c := &crew{Site: site.New(t, site.Options{})}
	c.nodes = []*member{{name: names[0], site: c.Site}}
	for _, name := range names[1:] {
		c.join(name, lab.Options{})
	}
	return c
}

// join starts a target for one more node.
func (c *crew) join(name string, options lab.Options) {
	c.T.Helper()
	c.nodes = append(c.nodes, &member{name: name, site: c.Another(options)})
}

// in is the crew in a part of the test.
func (c *crew) in(t *testing.T) *crew {
	part := &crew{Site: c.Site.In(t)}
	for _, m := range c.nodes {
		member := *m
		member.site = m.site.In(t)
		part.nodes = append(part.nodes, &member)
	}
	return part
}

func (c *crew) member(name string) *member {
	c.T.Helper()
	for _, m := range c.nodes {
		if m.name == name {
			return m
		}
	}
	c.T.Fatalf("no node is called %s", name)
	return nil
}

// plan writes the project: every node greets with greeting and its name.
func (c *crew) plan(greeting string) {
	c.T.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "{\n  nixpkgs = %q;\n", c.Nixpkgs)
	for _, m := range c.nodes {
		to := m.target
		if to == "" {
			to = fmt.Sprintf("%q", "alice@"+m.site.Target.Name())
		}
		fmt.Fprintf(&b, "  nodes.%s = {\n    configuration = ./%s.nix;\n    system = %q;\n    target = %s;\n%s  };\n",
			m.name, m.name, m.site.Target.System(), to, m.attributes)
		c.Write(m.name+".nix", site.With(site.Configuration(greeting+" "+m.name), m.more))
	}
	c.Write("ferry.nix", b.String()+"}\n")
}

// deploy runs ferry deploy with alice's password.
func (c *crew) deploy(args ...string) site.Outcome {
	c.T.Helper()
	return c.Ferry(append([]string{"deploy", "--sudo-password-file", c.Password}, args...)...)
}

// greet fails the test for each node that does not greet as wanted.
func (c *crew) greet(want map[string]string) {
	c.T.Helper()
	for name, greeting := range want {
		if got := c.member(name).site.State().Greeting; got != greeting {
			c.T.Errorf("%s greets with %q, want %q", name, got, greeting)
		}
	}
}

// ends fails the test unless ferry ended with status.
func (c *crew) ends(o site.Outcome, status int) {
	c.T.Helper()
	if o.Status != status {
		c.T.Errorf("status %d, want %d", o.Status, status)
	}
}
