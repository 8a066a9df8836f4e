package inventory

import (
	"errors"
	"strings"
	"testing"
)

// TestWordsChooseNodes locks what names, patterns and tags mean, and in which order nodes come.
func TestWordsChooseNodes(t *testing.T) {
	inv := &Inventory{File: "/a/ferry.nix", nodes: []Node{
		{Name: "db1", Tags: []string{"db", "eu-west"}}, {Name: "web1", Tags: []string{"web", "eu-west"}},
		{Name: "web2", Tags: []string{"web", "us"}}, {Name: "web3", Tags: []string{"web", "eu-east"}},
	}}
	for title, c := range map[string]struct {
		words string
		all   bool
		want  string // names, or the beginning of an error
	}{
		"names keep their order":        {"web2 db1", false, "web2 db1"},
		"each comes once":               {"web3 web* web1", false, "web3 web1 web2"},
		"a pattern":                     {"web[12]", false, "web1 web2"},
		"a tag":                         {"@eu-west", false, "db1 web1"},
		"a pattern of tags":             {"@eu-*", false, "db1 web1 web3"},
		"a name is left out":            {"@web !web1", false, "web2 web3"},
		"the place of a ! is all one":   {"!web1 @web", false, "web2 web3"},
		"a tag is left out":             {"@web !@us", false, "web1 web3"},
		"a pattern is left out of all":  {"!web*", true, "db1"},
		"all":                           {"", true, "db1 web1 web2 web3"},
		"nothing is left":               {"web1 !web*", false, ""},
		"an unknown name":               {"web4", false, "ferry.nix: no node is called web4"},
		"an unknown name left out":      {"!web4", true, "ferry.nix: no node is called web4"},
		"an unknown tag":                {"@wbe", false, "ferry.nix: @wbe is not a tag of any node (did you mean `web`?)"},
		"a tag far from all":            {"@production", false, "ferry.nix: @production is not a tag of any node (known are db, eu-east, eu-west, us, web)"},
		"a pattern that matches no one": {"mail*", false, "ferry.nix: mail* matches no node"},
		"no pattern":                    {"web[", false, "ferry.nix: web[ is not a pattern"},
		"no tag":                        {"@", false, "ferry.nix: @ is not a pattern"},
	} {
		nodes, err := inv.Choose(strings.Fields(c.words), c.all)
		var names []string
		for _, n := range nodes {
			names = append(names, n.Name)
		}
		got := strings.Join(names, " ")
		var e *Error
		if errors.As(err, &e) {
			got = e.Error()
			if len(e.Advice) > 0 {
				got += " (" + e.Advice[0] + ")"
			}
		}
		if err == nil && got != c.want || err != nil && !strings.HasPrefix(got, c.want) || err != nil && c.want == "" {
			t.Errorf("%s: %q gives %q, want %q", title, c.words, got, c.want)
		}
	}
}
