// Package inventory finds and reads ferry.nix, puts its source in the store, and evaluates a node to its bundle: the one
// derivation that, built, is everything the node's target needs.
//
// Every error that is about the inventory is an [*Error], which the caller finds with errors.As.
package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"ferry/internal/flake"
	"ferry/internal/health"
	"ferry/internal/nix"
	"ferry/internal/prose"
)

// Options say which inventory to open.
type Options struct {
	File string // the inventory, or the folder it is in; "" to look for ferry.nix
	Dir  string // where to look, and what relative paths are relative to; "" is the working directory

	// One machine without inventory: set Configuration, Nixpkgs and Target instead of File.
	Configuration string
	Nixpkgs       string // path of a nixpkgs tree
	System        string // "" is the building machine's
	Target        string // of a flake: of the node that its reference names

	// Flake is a flake that is the inventory. Where nothing is named and there is no ferry.nix, one that is found is taken.
	Flake FlakeOptions

	// Private names files, relative to Dir, that must not become part of the source: files that a password is read from.
	Private []string

	// Cache is where evaluations are kept; they are not if its Dir is empty.
	Cache Cache

	FerryVersion string
	Note         func(string) // called with one-line notes for the user, from any goroutine; may be nil
}

// Inventory is an opened inventory: its source is in the store and its nodes are known. Its methods may be used by
// several goroutines.
type Inventory struct {
	File   string // the inventory's path, or the configuration's without inventory
	Root   string // the folder or git work tree the source was taken of
	Source Source
	System string // the building machine's
	Impure string // what makes the inventory itself impure; "" if it is pure

	client   *nix.Client
	options  Options
	flake    *flake.Flake // nil unless it is the inventory
	place    place
	nodes    []Node
	settings string // see nix.Settings.Evaluation

	pins   once[string, pin]             // by path, what was put in the store
	looked once[nix.StorePath, struct{}] // pins without private material

	narrowedLock sync.Mutex
	narrowed     map[string]Source // by paths, what SourceOf has put in the store
	narrowing    chan struct{}     // full while as many sources as may be are being narrowed

	pinAnswers once[string, answer] // by node, or "" for the inventory's own pin, what a pure evaluation says of it

	evaluators evaluators
}

// narrowings is how many sources are narrowed at once: enough for one process of Nix to be asked of many, and few enough for the files
// that are open.
const narrowings = 16

// Open finds the inventory, puts its source in the store and reads the nodes. No configuration is evaluated and no pin
// fetched. Something wrong with any node is an error.
func Open(ctx context.Context, client *nix.Client, options Options) (*Inventory, error) {
	inv := &Inventory{
		client: client, options: options, narrowed: map[string]Source{},
	}
	inv.narrowing = make(chan struct{}, narrowings)
	inv.evaluators.eval, inv.evaluators.each = client.Eval, client.EvalEach
	inv.evaluators.free, inv.evaluators.heap = FreeMemory, inv.heap
	inv.evaluators.system = isSystem
	if options.Note == nil {
		inv.options.Note = func(string) {}
	}
	if inv.options.Dir == "" {
		inv.options.Dir = "."
	}
	var err error
	find := finder{client.Runner, inv.options.Note}
	var reference *flake.Reference
	switch {
	case options.Flake.Reference != "":
		reference, err = find.namedFlake(inv.options)
	case options.Configuration != "":
		inv.place, err = find.namedConfiguration(ctx, inv.options)
	default:
		inv.place, err = find.findInventory(ctx, inv.options.Dir, options.File)
		if none := new(noneError); errors.As(err, &none) {
			reference, err = find.foundFlake(inv.options.Dir, none, err)
		}
	}
	if err != nil {
		return nil, err
	}
	if reference != nil {
		if err := inv.openFlake(ctx, *reference); err != nil {
			return nil, err
		}
		return inv, nil
	}
	inv.Root, inv.File = inv.place.root, filepath.Join(inv.place.root, inv.place.rel)
	var group sync.WaitGroup
	var settings nix.Settings
	var settingsErr error
	group.Go(func() { settings, settingsErr = client.Settings(ctx) })
	// What keeps the source takes a moment to begin; if it cannot, the one who needs it says why.
	group.Go(func() { _, _ = client.Keep(ctx) })
	inv.Source, err = inv.takeSource(ctx, nil)
	group.Wait()
	inv.System, inv.settings = settings.System, settings.Evaluation
	if settingsErr == nil {
		inv.Source, err = inv.takeAllowed(ctx, inv.Source, err)
	}
	if err = errors.Join(settingsErr, err); err != nil {
		return nil, err
	}
	err = inv.readNodes(ctx)
	if err != nil {
		return nil, err
	}
	return inv, nil
}

// readNodes reads the nodes from the source in the store.
func (inv *Inventory) readNodes(ctx context.Context) error {
	if _, err := inv.locateFile(ctx, filepath.Join(string(inv.Source.Path), inv.place.rel)); err != nil {
		return err
	}
	if inv.options.Configuration != "" {
		return inv.singleNode()
	}
	return inv.read(ctx)
}

// Nodes are all nodes, sorted by name.
func (inv *Inventory) Nodes() []Node { return slices.Clone(inv.nodes) }

// Node is the node called name; the error for an unknown one suggests the nearest name.
func (inv *Inventory) Node(name string) (Node, error) {
	var known []string
	for _, n := range inv.nodes {
		if n.Name == name {
			return n, nil
		}
		known = append(known, n.Name)
	}
	e := &Error{Text: fmt.Sprintf("%s: no node is called %s", filepath.Base(inv.File), printable(name)), Advice: didYouMean(name, known)}
	if len(known) > 0 && len(known) <= 12 {
		e.Advice = orKnown(e.Advice, known)
	}
	return Node{}, e
}

// takeSource puts the source in the store. change, which may be nil, changes how.
func (inv *Inventory) takeSource(ctx context.Context, change func(*tree)) (Source, error) {
	t := tree{root: inv.place.root, git: inv.place.git, note: inv.options.Note, own: filepath.Dir(inv.place.rel)}
	if change != nil {
		change(&t)
	}
	t.private = inv.privateFiles()
	s, err := snapshot(ctx, inv.client, t)
	var e *Error
	if err != nil && !errors.As(err, &e) {
		return s, fmt.Errorf("source %s: %w", inv.place.root, err)
	}
	return s, err
}

// privateFiles are the files that must not become part of the source.
func (inv *Inventory) privateFiles() []string {
	var files []string
	for _, file := range inv.options.Private {
		if !filepath.IsAbs(file) {
			file = filepath.Join(inv.options.Dir, file)
		}
		files = append(files, file)
	}
	return files
}

// singleNode is the node of a machine without inventory.
func (inv *Inventory) singleNode() error {
	name, err := nameFromTarget(inv.options.Target)
	if err != nil {
		return err
	}
	n := Node{
		Name: name, Configuration: inv.place.rel, System: inv.options.System, Target: inv.options.Target, Checks: health.Default(),
	}
	if n.System == "" {
		n.System = inv.System
	}
	if err := checkTarget(n.Target); err != nil {
		return &Error{Attribute: "target", Err: err}
	}
	if err := checkSystem(n.System); err != nil {
		return &Error{Attribute: "system", Err: err, Advice: didYouMean(n.System, systems)}
	}
	inv.nodes = []Node{n}
	return nil
}

// locateFile is locateInSource for a file: a folder stands for its default.nix.
func (inv *Inventory) locateFile(ctx context.Context, value string) (string, error) {
	rel, isDir, err := inv.locateInSource(ctx, value)
	if err == nil && isDir {
		return inv.locateFile(ctx, filepath.Join(value, "default.nix"))
	}
	return rel, err
}

// locateInSource turns value, a path in the source's store path as Nix has it, into the path below the root. A symbolic link is
// followed, and one that leads out of the source is an error.
func (inv *Inventory) locateInSource(ctx context.Context, value string) (rel string, isDir bool, err error) {
	store := string(inv.Source.Path)
	value = filepath.Clean(value)
	if rel, err = filepath.Rel(store, value); err != nil {
		return "", false, err
	}
	if rel == ".." || strings.HasPrefix(rel, "../") {
		shown := value
		// From the root of the source, ../x is a path in the store that never existed.
		if filepath.Dir(value) == filepath.Dir(store) && !strings.Contains(filepath.Base(value), store[len(store)-6:]) {
			if _, err := os.Lstat(value); errors.Is(err, fs.ErrNotExist) {
				shown = filepath.Join(inv.Root, rel)
			}
		}
		return "", false, &Error{Text: fmt.Sprintf("%s is outside of the source, %s", printable(shown), printable(inv.Root)),
			Advice: []string{"move it there: only the source goes to the store and to the target"}}
	}
	resolved, err := filepath.EvalSymlinks(value)
	if errors.Is(err, fs.ErrNotExist) || notFolder(err) {
		return "", false, inv.missing(ctx, rel)
	}
	if err != nil {
		return "", false, err
	}
	if resolved != store && !strings.HasPrefix(resolved, store+"/") {
		return "", false, &Error{Text: fmt.Sprintf("%s is a symbolic link that leads out of the source, to %s", printable(rel), printable(resolved)),
			Advice: []string{"replace the link by the file: only the source goes to the store and to the target"}}
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return "", false, err
	}
	return rel, info.IsDir(), nil
}

// missing is the error for a file that the source lacks.
func (inv *Inventory) missing(ctx context.Context, rel string) error {
	if hint, known := inv.notInGit(ctx, rel); known {
		return &Error{Text: printable(rel) + " exists, but git does not know it, so it is not part of the source", Advice: []string{hint}}
	}
	if target, err := os.Readlink(filepath.Join(inv.Root, rel)); err == nil && isAnnexed(target) {
		return &Error{Text: printable(rel) + " is a link of git-annex, whose content is not in the source",
			Advice: []string{annexHint(rel)}}
	}
	if info, err := os.Lstat(filepath.Join(inv.Root, rel)); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return &Error{Text: printable(rel) + " is a symbolic link to something that is not in the source",
			Advice: []string{"replace the link by the file: only the source goes to the store and to the target"}}
	}
	e := &Error{Text: printable(filepath.Join(inv.Root, rel)) + " does not exist"}
	list, err := os.ReadDir(filepath.Dir(filepath.Join(inv.Root, rel)))
	if err != nil {
		return e
	}
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	if n := prose.Nearest(filepath.Base(rel), names); n != "" && n != filepath.Base(rel) {
		e.Advice = []string{"did you mean " + printable(filepath.Join(filepath.Dir(rel), n)) + "?"}
	}
	return e
}

// notInGit tells whether rel is in the work tree but not in the source, and if so, the command that brings it there.
func (inv *Inventory) notInGit(ctx context.Context, rel string) (command string, known bool) {
	if inv.place.git == nil {
		return "", false
	}
	if _, err := os.Stat(filepath.Join(inv.Root, rel)); err != nil {
		return "", false
	}
	if _, err := os.Lstat(filepath.Join(string(inv.Source.Path), rel)); err == nil {
		return "", false
	}
	return inv.place.git.addCommand(ctx, rel), true
}

// ask evaluates what inventory.nix answers to the question, an attribute or a call of one.
func (inv *Inventory) ask(ctx context.Context, question string, answer any) error {
	// What was killed in the middle of putting the source in the store is found out by Nix, when it reads it.
	source := func([]byte) []nix.StorePath { return []nix.StorePath{inv.Source.Path} }
	out, err := inv.eval(ctx, nix.Expression{Text: inv.expression(inv.Impure == "") + question, Pure: inv.Impure == ""}, inv.client.Eval, source)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, answer); err != nil {
		return fmt.Errorf("answer of Nix: %w", err)
	}
	return nil
}

// expression is inventory.nix applied to this inventory.
func (inv *Inventory) expression(pure bool) string {
	return nix.Call(inventoryNix, [][2]string{
		{"source", treeExpression(inv.Source, pure)},
		{"file", nix.Quote(inv.place.rel)},
		{"system", nix.Quote(inv.System)},
		{"outputs", "null"},
	})
}
