package nix

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseVersionOfAllEditions(t *testing.T) {
	for s, want := range map[string]Version{
		"nix-store (Nix) 2.8.0":                                            {"Nix", 2, 8, 0, "2.8.0"},
		"nix-store (Nix) 2.26.3\n":                                         {"Nix", 2, 26, 3, "2.26.3"},
		"nix-store (Nix) 2.34.0pre20260101_abcdef0":                        {"Nix", 2, 34, 0, "2.34.0pre20260101_abcdef0"},
		"nix-store (Nix) 2.35":                                             {"Nix", 2, 35, 0, "2.35"},
		"nix-store (Lix, like Nix) 2.91.1":                                 {"Lix", 2, 91, 1, "2.91.1"},
		"nix-store (Lix, like Nix) 2.94.0-pre20251001-abc\nSystem type: x": {"Lix", 2, 94, 0, "2.94.0-pre20251001-abc"},
		"nix-store (Determinate Nix 3.6.2) 2.29.0":                         {"Determinate Nix", 2, 29, 0, "2.29.0"},
	} {
		if got, err := ParseVersion(s); err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "nix-store", "nix-store (GNU Guix) ", "bash: nix-store: command not found", "nix-store (Nix) 99999999999999999999.1"} {
		if got, err := ParseVersion(s); err == nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
}

func TestVersionOfTheInstalledNix(t *testing.T) {
	useRealNix(t)
	v, err := new(Client).Version(t.Context())
	if err != nil || v.Major < 2 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestVersionBelow2_8IsTooOld(t *testing.T) {
	useFakeNix(t, "nix-store (Nix) 2.3.16\n", "", 0)
	v, err := new(Client).Version(t.Context())
	var old *TooOldError
	if !errors.As(err, &old) || v.Minor != 3 {
		t.Errorf("%+v, %v", v, err)
	}
	useFakeNix(t, "nix-store (Nix) 2.8.0\n", "", 0)
	if _, err := new(Client).Version(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWithoutNixTheErrorSaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c := new(Client)
	p := StorePath("/nix/store/" + someHash + "-a.drv")
	for what, call := range map[string]func() error{
		"Version":   func() error { _, err := c.Version(t.Context()); return err },
		"Settings":  func() error { _, err := c.Settings(t.Context()); return err },
		"Eval":      func() error { _, err := c.Eval(t.Context(), Expression{Text: "1"}); return err },
		"Add":       func() error { _, err := c.Add(t.Context(), "/etc/hostname"); return err },
		"Plan":      func() error { _, err := c.Plan(t.Context(), p); return err },
		"Build":     func() error { return c.Build(t.Context(), p, t.TempDir()+"/r", nil) },
		"OpenServe": func() error { _, err := c.OpenServe(t.Context()); return err },
	} {
		var missing *MissingError
		if err := call(); !errors.As(err, &missing) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSettingsOfTheInstalledNix(t *testing.T) {
	useRealNix(t)
	c := Client{Options: Options{MaxJobs: "7", Settings: [][2]string{{"extra-platforms", "i686-linux aarch64-linux"}}}}
	s, err := c.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.System == "" || s.MaxJobs != 7 || s.Builders != "" || len(s.Substituters) != 0 || !s.Builds("aarch64-linux") || s.Builds("riscv64-linux") {
		t.Errorf("%+v", s)
	}
}

func TestOptionsReachTheCommand(t *testing.T) {
	no := false
	o := Options{Substitute: &no, MaxJobs: "0", Cores: "3", Builders: "ssh://b", KeepFailed: true, Settings: [][2]string{{"a", "b c"}}}
	want := "--option substitute false --option max-jobs 0 --option cores 3 --option builders ssh://b --option keep-failed true --option a b c"
	if got := strings.Join(o.args(), " "); got != want {
		t.Errorf("got %s", got)
	}
	if got := (Options{}).args(); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestEvalGivesJSON(t *testing.T) {
	useRealNix(t)
	c := new(Client)
	long := "/*" + strings.Repeat(" a long comment ", 20_000) + "*/ " // more than fits in an argument
	for what, e := range map[string]Expression{
		"impure":      {Text: `{ a = [ 1 "two" ]; }`},
		"pure":        {Text: `{ a = [ 1 "two" ]; }`, Pure: true},
		"long":        {Text: long + `{ a = [ 1 "two" ]; }`},
		"long, pure":  {Text: long + `{ a = [ 1 "two" ]; }`, Pure: true},
		"like a flag": {Text: `-0 + { a = [ 1 "two" ]; }.a or { }`},
	} {
		got, err := c.Eval(t.Context(), e)
		if what == "like a flag" {
			if err == nil {
				t.Errorf("%s: %s", what, got)
			}
			continue
		}
		if want := `{"a":[1,"two"]}`; err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", what, got, err)
		}
	}
}

func TestEvalPureHasOnlyWhatIsFetchedByHash(t *testing.T) {
	useRealNix(t)
	c := new(Client)
	dir := filepath.Join(t.TempDir(), "source")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/default.nix", []byte(`{ here = builtins.currentSystem or "pure"; bad = [ (1 + "") ]; }`), 0o644); err != nil {
		t.Fatal(err)
	}
	source, err := c.Add(t.Context(), dir)
	if err != nil || source.Name() != "source" {
		t.Fatal(source, err)
	}
	hash, err := c.NarHash(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	fetch := `import (builtins.fetchTree { type = "path"; path = "` + string(source) + `"; narHash = "` + hash + `"; })`
	got, err := c.Eval(t.Context(), Expression{Text: "(" + fetch + ").here", Pure: true, Instantiate: true})
	if err != nil || string(got) != `"pure"` {
		t.Errorf("%s, %v", got, err)
	}
	_, err = c.Eval(t.Context(), Expression{Text: "(" + fetch + ").bad", Pure: true, Instantiate: true})
	var failed *EvalError
	if !errors.As(err, &failed) || !strings.HasPrefix(err.Error(), "evaluate: cannot add a string to an integer") {
		t.Fatal(err)
	}
	if lines := failed.UserTrace(source, dir); len(lines) == 0 || !strings.Contains(strings.Join(lines, "\n"), "at "+dir+"/default.nix:1:") {
		t.Errorf("trace %q", lines)
	}
	_, err = c.Eval(t.Context(), Expression{Text: "builtins.readFile /etc/passwd", Pure: true})
	if what, ok := IsPurity(err); !ok || !strings.HasPrefix(what, "/etc") {
		t.Errorf("%q: %v", what, err)
	}
}

// TestTheHeapIsAsAskedUnlessTheUserHasSetIt locks what reaches Nix, and that a pure evaluation does not see it.
func TestTheHeapIsAsAskedUnlessTheUserHasSetIt(t *testing.T) {
	useRealNix(t)
	for what, c := range map[string]struct {
		set  string
		heap int64
		pure bool
		want string
	}{
		"asked for":                 {"", 512 << 20, false, `"536870912"`},
		"asked for, pure":           {"", 512 << 20, true, `""`},
		"not asked for":             {"", 0, false, `""`},
		"set by the user":           {"401M", 512 << 20, false, `"401M"`},
		"set by the user, only":     {"401M", 0, false, `"401M"`},
		"much":                      {"", 8 << 30, false, `"8589934592"`},
		"set by the user, and pure": {"401M", 512 << 20, true, `""`},
	} {
		t.Run(what, func(t *testing.T) {
			t.Setenv(initialHeap, c.set)
			if c.set == "" {
				_ = os.Unsetenv(initialHeap)
			}
			got, err := new(Client).Eval(t.Context(), Expression{Text: `builtins.getEnv "` + initialHeap + `"`, Pure: c.pure, Heap: c.heap})
			if err != nil || string(got) != c.want {
				t.Errorf("the evaluation sees %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

// TestNixStartsWhereTheUserLimitsItsHeap locks that no heap is asked for above the limit: Nix would end at once.
func TestNixStartsWhereTheUserLimitsItsHeap(t *testing.T) {
	useRealNix(t)
	t.Setenv(initialHeap, "")
	_ = os.Unsetenv(initialHeap)
	t.Setenv(maximumHeap, "1G")
	got, err := new(Client).Eval(t.Context(), Expression{Text: `builtins.getEnv "` + initialHeap + `"`, Heap: 2 << 30})
	if err != nil || string(got) != `""` {
		t.Errorf("the evaluation sees %s, %v", got, err)
	}
}

func TestEvalLogHasTracesButNotTheError(t *testing.T) {
	useRealNix(t)
	for what, c := range map[string]struct{ text, log string }{
		"success":             {`builtins.trace "one" (builtins.trace "two\nlines" 1)`, "trace: one\ntrace: two\nlines\n"},
		"failure":             {`builtins.trace "one" (throw "no")`, "trace: one\n"},
		"a trace of an error": {`builtins.trace "one\nerror: two\nthree" 1`, "trace: one\nerror: two\nthree\n"},
	} {
		var log bytes.Buffer
		_, err := new(Client).Eval(t.Context(), Expression{Text: c.text, Log: &log})
		if (err == nil) == strings.Contains(c.text, "throw") || log.String() != c.log {
			t.Errorf("%s: %q, %v", what, log.String(), err)
		}
	}
}

func TestEvalErrorKeepsBothEndsOfAnEndlessTrace(t *testing.T) {
	m := evalMessages{}
	m.line("error: the message")
	for range 100_000 {
		m.line(strings.Repeat("x", 80))
	}
	m.line("the end")
	if got := m.trace(); len(got) > maxTrace+1000 || !strings.HasPrefix(got, "error: the message\n") || !strings.HasSuffix(got, "the end\n") {
		t.Errorf("%d bytes", len(got))
	}
}

func TestAddRefusesANameThatNixRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b")
	if _, err := new(Client).Add(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "its name contains ' '") {
		t.Error(err)
	}
}

func TestRootKeepsAPath(t *testing.T) {
	useRealNix(t)
	p := addReal(t, oddTree(t))
	link := filepath.Join(t.TempDir(), "a", "b", "root")
	c := new(Client)
	if err := c.Root(t.Context(), link, p); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != string(p) {
		t.Errorf("%s, %v", target, err)
	}
	if roots := output(t, "nix-store", "--query", "--roots", string(p)); !bytes.Contains(roots, []byte(link)) {
		t.Errorf("roots: %s", roots)
	}
	if info, err := os.Stat(filepath.Dir(link)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if !isRoot(link, p) {
		t.Error("it is not known that it is kept")
	}
	byHand := filepath.Join(t.TempDir(), "root")
	if err := os.Symlink(string(p), byHand); err != nil {
		t.Fatal(err)
	}
	if isRoot(byHand, p) {
		t.Error("a link that no Nix knows of counts as a root")
	}
	other := addReal(t, "/etc/hostname")
	if isRoot(link, other) {
		t.Error("a root of something else counts")
	}
	if err := c.Root(t.Context(), link, other); err != nil {
		t.Fatal(err)
	}
	if target, _ := os.Readlink(link); target != string(other) {
		t.Errorf("after the second call: %s", target)
	}
	if err := c.Root(t.Context(), link, StorePath("/nix/store/"+someHash+"-missing")); err == nil {
		t.Error("a path that is not valid became a root")
	}
}

func TestOpenServeTalksToTheStore(t *testing.T) {
	useRealNix(t)
	p := addReal(t, "/etc/hostname")
	s, err := new(Client).OpenServe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if closure, err := s.Closure([]StorePath{p}); err != nil || len(closure) != 1 {
		t.Errorf("%v, %v", closure, err)
	}
	if _, err := s.Closure([]StorePath{StorePath("/nix/store/" + someHash + "-missing")}); err == nil {
		t.Error("a path that is not valid has a closure")
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "is not valid") {
		t.Errorf("the reason is missing: %v", err)
	}
}

func TestOpenServeSaysWhyItCannot(t *testing.T) {
	useFakeNix(t, "", "error: cannot open the database\n", 1)
	if s, err := new(Client).OpenServe(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot open the database") {
		t.Error(s, err)
	}
}
