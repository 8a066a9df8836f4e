package health

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// example is what the inventory of doc/inventory.md says.
func example() Checks {
	return Checks{
		Units: None,
		HTTP: []HTTP{
			{URL: "http://web1/healthz", Status: 200, From: Here, Timeout: 10},
			{URL: "https://[::1]:8443/?a=b", Status: 401, From: Target, Timeout: 30, Contains: "<h1>\n"},
		},
		Commands: []Command{{Run: []string{"pg_isready", "-q", "a\n'b'"}, Timeout: 20}, {Run: []string{"true"}, Timeout: 1}},
	}
}

func TestChecksSurviveBeingStored(t *testing.T) {
	for name, c := range map[string]Checks{"none": Default(), "all": example(), "only commands": {Units: Ignore, Commands: example().Commands}} {
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %s became %+v, %v", name, text, got, err)
		}
	}
}

// TestParseRefuses locks that what a target keeps is looked at before it is asked: it may have been written by anyone.
func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"nothing":           {"", "EOF"},
		"another type":      {"[]", "cannot unmarshal"},
		"unknown attribute": {`{"units":"none","htpt":[]}`, "unknown field"},
		"more after it":     {`{"units":"none"} {}`, "more follows"},
		"no policy":         {`{}`, `checks.units.failed: expected "ignore", "no-new" or "none", found the string ""`},
		"no status":         {`{"units":"none","http":[{"url":"http://a","from":"here","timeout":1}]}`, "checks.http[0].status: expected a status of HTTP"},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Checks)
		path   string
		says   string
	}{
		"unknown policy":      {func(c *Checks) { c.Units = "non" }, "units.failed", `found the string "non"`},
		"no URL":              {func(c *Checks) { c.HTTP[1].URL = "" }, "http[1].url", "an empty string"},
		"no scheme":           {func(c *Checks) { c.HTTP[0].URL = "web1/healthz" }, "http[0].url", "begins with http://"},
		"another scheme":      {func(c *Checks) { c.HTTP[0].URL = "file:///etc/shadow" }, "http[0].url", "begins with http://"},
		"only a scheme":       {func(c *Checks) { c.HTTP[0].URL = "http:web1" }, "http[0].url", "is not a URL"},
		"no host":             {func(c *Checks) { c.HTTP[0].URL = "http://:80/x" }, "http[0].url", "names no host"},
		"a bad port":          {func(c *Checks) { c.HTTP[0].URL = "http://web1:http/" }, "http[0].url", "is not a URL"},
		"a space":             {func(c *Checks) { c.HTTP[0].URL = "http://web1/a b" }, "http[0].url", "is not a URL"},
		"a line break":        {func(c *Checks) { c.HTTP[0].URL = "http://web1/\nb" }, "http[0].url", "is not a URL"},
		"a password":          {func(c *Checks) { c.HTTP[0].URL = "http://alice:secret@web1/" }, "http[0].url", "has no place in it"},
		"status of no answer": {func(c *Checks) { c.HTTP[0].Status = 100 }, "http[0].status", "found 100"},
		"from elsewhere":      {func(c *Checks) { c.HTTP[0].From = "there" }, "http[0].from", `expected "here" or "target"`},
		"no time":             {func(c *Checks) { c.HTTP[0].Timeout = 0 }, "http[0].timeout", "found 0"},
		"negative time":       {func(c *Checks) { c.Commands[1].Timeout = -1 }, "commands[1].timeout", "found -1"},
		"too much time":       {func(c *Checks) { c.Commands[0].Timeout = 601 }, "commands[0].timeout", "from 1 to 600"},
		"no command":          {func(c *Checks) { c.Commands[0].Run = nil }, "commands[0].run", "an empty list"},
		"an empty command":    {func(c *Checks) { c.Commands[0].Run[0] = "" }, "commands[0].run", "an empty string"},
		"a NUL byte":          {func(c *Checks) { c.Commands[0].Run[1] = "a\x00b" }, "commands[0].run", "element 2 contains a NUL"},
		"an endless command":  {func(c *Checks) { c.Commands[0].Run[1] = strings.Repeat("x", 1<<20) }, "commands[0].run", "longer than"},
		"too many":            {func(c *Checks) { c.Commands = make([]Command, 31) }, "commands", "more than 30"},
	} {
		t.Run(name, func(t *testing.T) {
			checks := example()
			if err := checks.Validate(); err != nil {
				t.Fatal(err)
			}
			c.change(&checks)
			var invalid *InvalidError
			if err := checks.Validate(); !errors.As(err, &invalid) || invalid.Path != c.path || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if strings.Contains(invalid.Error(), "secret") {
				t.Error("the password is shown")
			}
		})
	}
}

func TestTimeoutIsTheLongestOfWhatGoesOnAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		checks Checks
		want   time.Duration
	}{
		"nothing":             {Default(), 0},
		"requests at once":    {Checks{HTTP: example().HTTP}, 35 * time.Second},
		"commands in a row":   {Checks{Commands: example().Commands}, 31 * time.Second},
		"commands beside all": {example(), 35 * time.Second},
	} {
		if got := c.checks.Timeout(); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What is parsed is asked for, so it has to be whole.
func FuzzParse(f *testing.F) {
	text, err := json.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"units":"none","http":[{"url":"http://%2e/","status":2e2,"from":"here","timeout":1}]}`))
	f.Add([]byte(`{"units":"no-new"}[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		stored, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(stored)
		if err != nil || len(again.HTTP) != len(c.HTTP) || len(again.Commands) != len(c.Commands) || again.Timeout() != c.Timeout() {
			t.Errorf("%+v became %+v, %v", c, again, err)
		}
		if limit := maxChecks * (MaxTimeout.Duration() + grace); c.Timeout() > limit {
			t.Errorf("it would take %v", c.Timeout())
		}
	})
}
