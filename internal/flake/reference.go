package flake

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// FileName is what a flake is called in its folder.
const FileName = "flake.nix"

// Reference says which flake is meant, and perhaps which of its nodes.
type Reference struct {
	URL string // what Nix takes for it
	// Folder is the folder of this machine that has its flake.nix; "" for a flake that is elsewhere.
	Folder string
	Node   string // what stood behind the #; "" for none
}

// scheme is how a reference that is no path begins.
var scheme = regexp.MustCompile(`^(?:path|github|gitlab|sourcehut|flake|https?|git|hg|tarball|file)(?:\+[a-z]+)?:`)

// IsReference tells a word that is a reference from one that names a node or a target.
func IsReference(word string) bool {
	return strings.Contains(word, "#") || strings.HasPrefix(word, ".") || strings.HasPrefix(word, "/") || scheme.MatchString(word)
}

// Parse reads a reference as Nix's commands take it. A path is relative to dir, and names the first folder from there upwards that has a
// flake.nix. What stands behind the # is one name, with dots or not; nixosConfigurations in front of it may be left out.
func Parse(text, dir string) (Reference, error) {
	place, name, _ := strings.Cut(text, "#")
	r := Reference{Node: NodeName(name)}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return r, fmt.Errorf("%q is no reference to a flake", text)
	}
	var err error
	switch is := scheme.FindString(place); {
	case is == "path:":
		path, query, _ := strings.Cut(strings.TrimPrefix(place, is), "?")
		if path, err = url.PathUnescape(path); err != nil {
			return r, fmt.Errorf("%s: %w", text, err)
		}
		return r, r.atPath(absolute(path, dir), query)
	case is != "":
		r.URL = place
		if rest, local := strings.CutPrefix(place, "git+file:"); local {
			path, query, _ := strings.Cut(rest, "?")
			if r.Folder, err = below(strings.TrimPrefix(path, "//"), query); err != nil {
				return r, fmt.Errorf("%s: %w", text, err)
			}
		}
		return r, nil
	case place != "" && !strings.ContainsAny(place[:1], "./"):
		// A name in Nix's registry of flakes.
		r.URL = place
		return r, nil
	}
	path, query, _ := strings.Cut(place, "?")
	return r, r.inFolder(absolute(path, dir), query)
}

// NodeName is the node that is meant by what is behind the #.
func NodeName(name string) string {
	name = strings.TrimPrefix(name, "nixosConfigurations.")
	if len(name) > 1 && strings.HasPrefix(name, `"`) && strings.HasSuffix(name, `"`) {
		name = name[1 : len(name)-1]
	}
	return name
}

func absolute(path, dir string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}

// below is the folder that dir= in query names below path.
func below(path, query string) (string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", err
	}
	if path, err = url.PathUnescape(path); err != nil {
		return "", err
	}
	return filepath.Join(path, filepath.Join("/", values.Get("dir"))), nil
}

// atPath is the flake in a folder that Nix takes whole, git or not.
func (r *Reference) atPath(path, query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("%s?%s: %w", path, query, err)
	}
	r.Folder = filepath.Join(path, filepath.Join("/", values.Get("dir")))
	r.URL = "path:" + escaped(path) + question(query)
	_, err = os.Stat(filepath.Join(r.Folder, FileName))
	return err
}

// inFolder is the flake in the first folder from path upwards that has one. Nix takes what git knows of its work tree, or else the folder.
func (r *Reference) inFolder(path, query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("%s?%s: %w", path, query, err)
	}
	sub := filepath.Join("/", values.Get("dir"))
	values.Del("dir")
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && filepath.Base(path) == FileName {
		path = filepath.Dir(path)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	folder, root, err := find(filepath.Join(path, sub))
	if err != nil {
		return err
	}
	r.Folder = folder
	switch {
	case root == "" && sub != "/":
		values.Set("dir", sub[1:])
		r.URL = "path:" + escaped(path)
	case root == "":
		r.URL = "path:" + escaped(folder)
	default:
		if below, _ := filepath.Rel(root, folder); below != "." {
			values.Set("dir", below)
		}
		if _, err := os.Stat(filepath.Join(root, ".git", "shallow")); err == nil {
			values.Set("shallow", "1")
		}
		r.URL = "git+file://" + escaped(root)
	}
	r.URL += question(values.Encode())
	return nil
}

func question(query string) string {
	if query == "" {
		return ""
	}
	return "?" + query
}

func escaped(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// NoneError is that no folder has a flake.nix.
type NoneError struct{ Folder string }

func (e *NoneError) Error() string { return "no " + FileName + " in " + e.Folder + " or above it" }

// find looks for a flake.nix in dir and above it, and for the work tree of git that this folder is in; "": in none. It ends where a work
// tree, or the file system, does.
func find(dir string) (folder, root string, err error) {
	for at := dir; ; at = filepath.Dir(at) {
		if folder == "" {
			switch _, err := os.Stat(filepath.Join(at, FileName)); {
			case err == nil:
				folder = at
			case !errors.Is(err, fs.ErrNotExist):
				return "", "", err
			}
		}
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			root = at
		}
		if root != "" || filepath.Dir(at) == at {
			break
		}
	}
	if folder == "" {
		return "", "", &NoneError{Folder: dir}
	}
	return folder, root, nil
}
