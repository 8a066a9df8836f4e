package cause

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ferry/internal/nix"
)

// explainer puts the differences of single derivations into words.
type explainer struct {
	facts                       Facts
	versionBefore, versionAfter string // NixOS's, as the two systems' names have them
}

// explain gives what differs in a pair itself, and not only in what it is made from.
func (x *explainer) explain(p *pair) []Cause {
	name := drvName(p.after)
	if p.a == nil || p.b == nil {
		return []Cause{{Name: name, Kind: Unread, Text: "its derivation cannot be read, so it is not known why it differs"}}
	}
	var causes []Cause
	add := func(kind Kind, before, after, text string) {
		causes = append(causes, Cause{Name: name, Kind: kind, Text: text, Before: before, After: after})
	}
	if p.a.System != p.b.System {
		add(Platform, p.a.System, p.b.System, fmt.Sprintf("it is built on %s instead of %s: another system, or crossSystem on one side only", p.b.System, p.a.System))
	}
	known := p.known()
	x.sources(p, known, add)
	for _, drv := range p.gone {
		add(inputKind(drv), drvName(drv), "", inputText(drv, "not made from %s any more"))
	}
	for _, drv := range p.come {
		add(inputKind(drv), "", drvName(drv), inputText(drv, "made from %s besides"))
	}
	mixed := len(p.gone)+len(p.come) > 0
	for _, d := range attributes(p, known) {
		c, follows := x.attribute(name, d)
		if follows || mixed && c.Kind == Setting {
			// The value names what comes and goes.
			continue
		}
		causes = append(causes, c)
	}
	return merge(causes)
}

// merge keeps one of several causes that say the same of one derivation.
func merge(causes []Cause) []Cause {
	var kept []Cause
	for _, c := range causes {
		if !slices.ContainsFunc(kept, func(k Cause) bool { return k.Kind == c.Kind && k.Text == c.Text }) {
			kept = append(kept, c)
		}
	}
	return kept
}

func inputKind(drv nix.StorePath) Kind {
	if isManual(drvName(drv)) {
		return Modules
	}
	return Input
}

func inputText(drv nix.StorePath, format string) string {
	return "it is " + fmt.Sprintf(format, drvName(drv))
}

// isManual tells whether a derivation lists the options of all modules.
func isManual(name string) bool {
	return strings.Contains(name, "manual") || strings.HasPrefix(name, "options") || strings.Contains(name, "-options") || strings.HasPrefix(name, "optionsDocBook") ||
		strings.HasPrefix(name, "lazy-options") || strings.Contains(name, "manpages")
}

// substitutions are what stands for store paths on both sides, so that texts that differ only in them are the same.
type substitutions struct{ before, after map[string]string }

// known names what the texts of a pair may differ by: its own outputs, and those of its inputs that differ.
func (p *pair) known() substitutions {
	s := substitutions{map[string]string{}, map[string]string{}}
	outputs := func(to map[string]string, d *nix.Derivation, mark string) {
		if d == nil {
			return
		}
		for name, o := range d.Outputs {
			if o.Path != "" {
				to[string(o.Path)] = mark + ":" + name + ">"
			}
		}
	}
	outputs(s.before, p.a, "<itself")
	outputs(s.after, p.b, "<itself")
	for i, child := range p.children {
		mark := fmt.Sprintf("<input %d", i)
		outputs(s.before, child.a, mark)
		outputs(s.after, child.b, mark)
		// A derivation may name another one's file.
		s.before[string(child.before)], s.after[string(child.after)] = mark+">", mark+">"
	}
	return s
}

// sources pairs the files and folders that only one side takes, and says how they differ.
func (x *explainer) sources(p *pair, known substitutions, add func(kind Kind, before, after, text string)) {
	var gone, come []nix.StorePath
	for _, s := range p.a.Sources {
		if !slices.Contains(p.b.Sources, s) {
			gone = append(gone, s)
		}
	}
	for _, s := range p.b.Sources {
		if !slices.Contains(p.a.Sources, s) {
			come = append(come, s)
		}
	}
	mark := func(a, b nix.StorePath, i int) {
		known.before[string(a)], known.after[string(b)] = fmt.Sprintf("<source %d>", i), fmt.Sprintf("<source %d>", i)
	}
	var left []nix.StorePath
	for i, a := range gone {
		n := slices.IndexFunc(come, func(b nix.StorePath) bool { return a.Name() == b.Name() })
		if n < 0 {
			left = append(left, a)
			continue
		}
		mark(a, come[n], i)
		add(Content, string(a), string(come[n]), fmt.Sprintf("the file or folder %s, which it takes from the configuration or nixpkgs, has other content", a.Name()))
		come = slices.Delete(come, n, n+1)
	}
	for i, a := range left {
		if i < len(come) {
			mark(a, come[i], len(gone)+i)
			add(Folder, a.Name(), come[i].Name(), fmt.Sprintf("a file or folder that it takes is called %s in the one and %s in the other: "+
				"a folder itself is used as a source (./. or ../.), and has another name there; builtins.path { path = ./.; name = \"…\"; } gives it one name", a.Name(), come[i].Name()))
			continue
		}
		add(Input, a.Name(), "", "it does not take the file or folder "+a.Name()+" any more")
	}
	for _, b := range come[min(len(left), len(come)):] {
		add(Input, "", b.Name(), "it takes the file or folder "+b.Name()+" besides")
	}
}

// differing is a value that differs.
type differing struct{ what, before, after string }

// attributes are the values of a pair that differ by more than known store paths.
func attributes(p *pair, known substitutions) []differing {
	var list []differing
	compare := func(what, before, after string) {
		if before == after {
			return
		}
		before, after = replace(before, known.before), replace(after, known.after)
		if before != after {
			list = append(list, differing{what, before, after})
		}
	}
	compare("builder", p.a.Builder, p.b.Builder)
	compare("arguments", strings.Join(p.a.Args, "\n"), strings.Join(p.b.Args, "\n"))
	keys := maps.Clone(p.a.Env)
	maps.Copy(keys, p.b.Env)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, before := p.a.Env[key]
		is, after := p.b.Env[key]
		switch {
		case key == "system" && p.a.System != p.b.System, key == "builder", key == "args":
		case before && after:
			compare(key, was, is)
		case before && was != "":
			list = append(list, differing{key, was, ""})
		case after && is != "":
			list = append(list, differing{key, "", is})
		}
	}
	return list
}

// storeMention is a store path in a text.
var storeMention = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-[0-9a-zA-Z+._?=-]+`)

// replace puts marks in the place of store paths.
func replace(text string, marks map[string]string) string {
	if !strings.Contains(text, nix.StoreDir) {
		return text
	}
	return storeMention.ReplaceAllStringFunc(text, func(path string) string {
		if mark, found := marks[path]; found {
			return mark
		}
		// A full stop may end a sentence, and not a name.
		if mark, found := marks[strings.TrimRight(path, ".")]; found {
			return mark
		}
		return path
	})
}

var (
	revision = regexp.MustCompile(`\b[0-9a-f]{7,40}\b`)
	// environmentWord is what a variable of the environment may have as its value.
	environmentWord = regexp.MustCompile(`^[\w./@:-]{2,64}$`)
	homePath        = regexp.MustCompile(`/(home|Users)/[^/\s"':;]+|/root\b`)
)

// attribute puts a value that differs into words. follows says that it is a consequence of what is said elsewhere.
func (x *explainer) attribute(name string, d differing) (c Cause, follows bool) {
	before, after := excerpts(d.before, d.after)
	c = Cause{Name: name, Kind: Setting, Before: before, After: after, Text: fmt.Sprintf("%s is %s instead of %s", attributeWords(d.what), quoted(after), quoted(before))}
	switch {
	case x.versionBefore != x.versionAfter && x.versionBefore != "" && x.versionAfter != "" &&
		withoutRevisions(strings.ReplaceAll(d.before, x.versionBefore, x.versionAfter)) == withoutRevisions(d.after):
		c.Kind, c.Before, c.After = Version, x.versionBefore, x.versionAfter
		c.Text = fmt.Sprintf("NixOS calls itself %s instead of %s: nixpkgs has .version-suffix, .git-revision or .git on one side only, or is another one", x.versionAfter, x.versionBefore)
	case name == "nixos-version":
		c.Kind, c.Before, c.After = Version, "", ""
		c.Text = "the program nixos-version tells another revision: nixpkgs has .git-revision or .git on one side only, or system.configurationRevision differs"
	case isManual(name):
		c.Kind, c.Before, c.After = Modules, "", ""
		c.Text = "the list of all options is another one: one side has another set of modules, or another nixpkgs"
	case sameWords(d.before, d.after):
		c.Kind, c.Before, c.After = Order, "", ""
		c.Text = fmt.Sprintf("%s has the same entries in another order: one side puts a module around the configuration", attributeWords(d.what))
	case x.facts.NixBefore != x.facts.NixAfter && x.facts.NixBefore != "" && strings.ReplaceAll(d.before, x.facts.NixBefore, x.facts.NixAfter) == d.after:
		c.Kind, c.Before, c.After = NixItself, x.facts.NixBefore, x.facts.NixAfter
		c.Text = fmt.Sprintf("it contains Nix's own version, %s instead of %s: builtins.nixVersion in the configuration", c.After, c.Before)
	case withoutRevisions(d.before) == withoutRevisions(d.after) && hasRevision(d.before+d.after):
		c.Kind = Version
		c.Text = fmt.Sprintf("it contains another git revision, %s instead of %s: nixpkgs has .git-revision or .git on one side only, or system.configurationRevision differs", quoted(after), quoted(before))
	default:
		x.impurity(&c, d)
	}
	return c, d.what == "name" && c.Kind == Setting && d.before == "" || d.what == "out"
}

// impurity finds by the values which impure function a configuration has called.
func (x *explainer) impurity(c *Cause, d differing) {
	was, is := firstWords(d.before, d.after)
	switch {
	case isTime(was) && isTime(is):
		c.Kind, c.Text = Impure, fmt.Sprintf("it contains a time, %s instead of %s: builtins.currentTime in the configuration", is, was)
	case homePath.MatchString(was) && homePath.MatchString(is) && !strings.Contains(was+is, nix.StoreDir):
		c.Kind, c.Text = Impure, fmt.Sprintf("it contains %s instead of %s: builtins.getEnv \"HOME\", or a path outside of the source, in the configuration", quoted(is), quoted(was))
	case isSystem(was) && isSystem(is):
		c.Kind, c.Text = Platform, fmt.Sprintf("it is for %s instead of %s: builtins.currentSystem in the configuration, or another system", is, was)
	case storeMention.MatchString(was) && storeMention.MatchString(is), strings.HasPrefix(was, "/") && strings.HasPrefix(is, "/"):
		c.Kind, c.Text = Place, fmt.Sprintf("%s mentions the path %s instead of %s: toString of a path, or pkgs.path, in the configuration; \"${./file}\" copies it instead", attributeWords(d.what), is, was)
	case (was == "") != (is == "") && environmentWord.MatchString(was+is):
		c.Text += "; if that is from builtins.getEnv: it gives nothing where evaluation is pure"
	}
}

func attributeWords(what string) string {
	switch what {
	case "text", "buildCommand", "script", "arguments", "builder":
		return "its " + what
	}
	return fmt.Sprintf("its attribute %s", what)
}

func isTime(word string) bool {
	seconds, err := strconv.ParseInt(word, 10, 64)
	return err == nil && len(word) == 10 && time.Unix(seconds, 0).Year() >= 2001
}

func isSystem(word string) bool {
	return strings.HasSuffix(word, "-linux") || strings.HasSuffix(word, "-linux-gnu") || strings.HasSuffix(word, "-darwin")
}

// withoutRevisions leaves out what git calls commits, and what is between words.
func withoutRevisions(text string) string {
	text = revision.ReplaceAllStringFunc(text, func(word string) string {
		if isRevision(word) {
			return ""
		}
		return word
	})
	return strings.Join(strings.Fields(text), " ")
}

func hasRevision(text string) bool {
	return slices.ContainsFunc(revision.FindAllString(text, -1), isRevision)
}

// isRevision tells a revision from a number.
func isRevision(word string) bool {
	return len(word) == 40 || strings.ContainsAny(word, "abcdef") && strings.ContainsAny(word, "0123456789")
}

// sameWords tells whether both have the same words, in another order.
func sameWords(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	if len(x) < 2 || len(x) != len(y) {
		return false
	}
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// firstWords are the first words of two texts that differ.
func firstWords(a, b string) (was, is string) {
	start := commonStart(a, b)
	isEnd := func(r rune) bool { return r <= ' ' || strings.ContainsRune(`"';,()[]{}=`, r) }
	at := strings.LastIndexFunc(a[:start], isEnd) + 1
	word := func(text string) string {
		if at > len(text) {
			return ""
		}
		if end := strings.IndexFunc(text[at:], isEnd); end >= 0 {
			return text[at : at+end]
		}
		return text[at:]
	}
	return word(a), word(b)
}

func commonStart(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// maxExcerpt is how much of a value is shown, in bytes, and around how much before the difference.
const (
	maxExcerpt = 60
	around     = 20
)

// excerpts are what differs of two values, with a little of what is around it.
func excerpts(a, b string) (before, after string) {
	start := commonStart(a, b)
	end := 0
	for end < len(a)-start && end < len(b)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	cut := func(text string) string {
		from, to := max(0, start-around), min(len(text), len(text)-end+around)
		// A line says enough.
		if i := strings.LastIndexByte(text[from:start], '\n'); i >= 0 {
			from += i + 1
		}
		if i := strings.IndexByte(text[len(text)-end:to], '\n'); i >= 0 {
			to = len(text) - end + i
		}
		part, more := text[from:to], ""
		if len(part) > maxExcerpt {
			part, more = part[:maxExcerpt], "…"
		}
		return strings.ToValidUTF8(part, "") + more
	}
	return cut(a), cut(b)
}

func quoted(text string) string {
	if text == "" {
		return "nothing"
	}
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "?")
	}
	return strconv.Quote(text)
}
