package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/run"
)

// canary is a program that writes its name down when anybody starts it.
func canary(t *testing.T, started, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho "+name+" >>"+run.Quote(started)+"\ncat\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return program
}

// arm puts a canary wherever a repository's configuration may name a program.
func arm(t *testing.T, dir, started string) {
	t.Helper()
	gitDir := git(t, dir, "rev-parse", "--absolute-git-dir")
	common := git(t, dir, "rev-parse", "--path-format=absolute", "--git-common-dir")
	config := ""
	for _, name := range []string{
		"filter.x.clean", "filter.x.smudge", "filter.x.process", "filter.lfs.clean", "filter.lfs.process", "core.sshCommand", "core.fsmonitor",
		"core.gitProxy", "core.askPass", "core.pager", "core.editor", "core.alternateRefsCommand", "gpg.program", "gpg.ssh.program",
		"gpg.x509.program", "diff.external", "diff.x.command", "diff.x.textconv", "credential.helper", "pager.log", "pager.status",
		"uploadpack.packObjectsHook", "merge.x.driver", "interactive.diffFilter", "alias.rev-parse", "alias.status",
	} {
		at := strings.LastIndexByte(name, '.')
		section, sub, _ := strings.Cut(name[:at], ".")
		if sub != "" {
			sub = fmt.Sprintf(" %q", sub)
		}
		value := canary(t, started, name)
		if strings.HasPrefix(name, "alias.") {
			value = "!" + value
		}
		config += fmt.Sprintf("[%s%s]\n\t%s = %q\n", section, sub, name[at+1:], value)
	}
	hooks := t.TempDir()
	for _, hook := range []string{"post-index-change", "fsmonitor-watchman", "reference-transaction", "pre-auto-gc", "post-checkout"} {
		text := "#!/bin/sh\necho hook " + hook + " >>" + run.Quote(started) + "\n"
		for _, place := range []string{hooks, filepath.Join(common, "hooks")} {
			if err := os.MkdirAll(place, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(place, hook), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	remote := fmt.Sprintf("[remote \"origin\"]\n\turl = ext::%s\n\tpromisor = true\n\tpartialclonefilter = blob:none\n", canary(t, started, "ext"))
	config += fmt.Sprintf("[core]\n\thooksPath = %q\n[log]\n\tshowSignature = true\n[protocol]\n\tallow = always\n%s", hooks, remote)
	attributes := "* filter=x diff=x merge=x\n"
	for file, text := range map[string]string{
		filepath.Join(common, "config"): config, filepath.Join(common, "more"): config,
		filepath.Join(gitDir, "config.worktree"): config, filepath.Join(common, "info/attributes"): attributes,
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(file)
		if filepath.Base(file) == "config" {
			text += "[include]\n\tpath = more\n[extensions]\n\tworktreeConfig = true\n\tpartialClone = origin\n[core]\n\trepositoryformatversion = 1\n"
		}
		if err := os.WriteFile(file, append(before, text...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// signed makes the checked out commit one with a signature, which git would have gpg verify.
func signed(t *testing.T, dir string) {
	t.Helper()
	text := git(t, dir, "cat-file", "commit", "HEAD")
	headers, message, _ := strings.Cut(text, "\n\n")
	file := filepath.Join(t.TempDir(), "commit")
	signature := "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEzBAAB\n -----END PGP SIGNATURE-----\n"
	if err := os.WriteFile(file, []byte(headers+"\n"+signature+"\n"+message+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "update-ref", "HEAD", git(t, dir, "hash-object", "-w", "-t", "commit", file))
}

// TestNothingThatACheckoutNamesIsStarted has a checkout in every form, whose configuration names programs wherever it can.
func TestNothingThatACheckoutNamesIsStarted(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	files := map[string]string{
		"ferry.nix": `{ nixpkgs = ` + pinPath(t) + `; nodes.a = { configuration = ./a.nix; source = [ ]; }; }`,
		"a.nix":     "{ }", "sub/b.nix": "{ }", ".gitattributes": "*.nix filter=x diff=x\n",
	}
	for name, form := range map[string]func(t *testing.T, dir, started string) string{
		"a repository": func(_ *testing.T, dir, _ string) string { return dir },
		"a work tree beside it": func(t *testing.T, dir, _ string) string {
			second := filepath.Join(t.TempDir(), "second")
			git(t, dir, "worktree", "add", "--quiet", second)
			return second
		},
		"a .git that leads elsewhere": func(t *testing.T, dir, _ string) string {
			if err := os.Rename(filepath.Join(dir, ".git"), filepath.Join(dir, "repo")); err != nil {
				t.Fatal(err)
			}
			write(t, dir, map[string]string{".git": "gitdir: repo\n"})
			return dir
		},
		"a submodule": func(t *testing.T, dir, started string) string {
			outer := t.TempDir()
			write(t, outer, files)
			repository(t, outer)
			git(t, outer, "submodule", "--quiet", "add", dir, "module")
			git(t, outer, "commit", "--quiet", "--message=module")
			arm(t, filepath.Join(outer, "module"), started)
			touch(t, filepath.Join(outer, "module/a.nix"))
			return outer
		},
		"objects that are missing, and promised": func(t *testing.T, dir, _ string) string {
			blob := git(t, dir, "rev-parse", "HEAD:a.nix")
			if err := os.Remove(filepath.Join(dir, ".git/objects", blob[:2], blob[2:])); err != nil {
				t.Fatal(err)
			}
			return dir
		},
		"objects of another repository": func(t *testing.T, dir, _ string) string {
			parent := t.TempDir()
			git(t, dir, "clone", "--quiet", "--shared", dir, filepath.Join(parent, "clone"))
			link := filepath.Join(parent, "theirs")
			if err := os.Symlink(filepath.Join(dir, ".git/objects"), link); err != nil {
				t.Fatal(err)
			}
			write(t, parent, map[string]string{"clone/.git/objects/info/alternates": "../../../theirs\n"})
			return filepath.Join(parent, "clone")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, started := t.TempDir(), filepath.Join(t.TempDir(), "started")
			write(t, dir, files)
			repository(t, dir)
			signed(t, dir)
			dir = form(t, dir, started)
			head := git(t, dir, "rev-parse", "HEAD")
			arm(t, dir, started)
			// git compares the content of what looks changed.
			touch(t, filepath.Join(dir, "a.nix"))
			inv, _ := open(t, dir, Options{})
			if inv.Source.Revision != head || inv.Source.Dirty {
				t.Errorf("the source is %+v, want revision %s", inv.Source, head)
			}
			node, err := inv.Node("a")
			if err != nil {
				t.Fatal(err)
			}
			s, err := inv.SourceOf(t.Context(), node)
			if err != nil || !revisionPattern.MatchString(s.Revision) || s.Dirty {
				t.Errorf("the node's source is %+v (%v)", s, err)
			}
			for _, revision := range []string{head, strings.Repeat("1", 40)} {
				if _, err := inv.Standing(t.Context(), node, revision); err != nil {
					t.Errorf("standing of %s: %v", revision, err)
				}
			}
			write(t, dir, map[string]string{"new.nix": "{ }"})
			if command, known := inv.notInGit(t.Context(), "new.nix"); !known || !strings.Contains(command, "git add") {
				t.Errorf("what adds a file: %q", command)
			}
			write(t, dir, map[string]string{"a.nix": "{  }"})
			if inv, _ := open(t, dir, Options{}); !inv.Source.Dirty {
				t.Error("an edit does not count")
			}
			if names, err := os.ReadFile(started); err == nil {
				t.Errorf("started:\n%s", names)
			}
			if left := list(t, os.Getenv("XDG_RUNTIME_DIR")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			// The canaries sing: git itself starts some of them.
			_ = (&run.Runner{}).Run(t.Context(), run.Command{Argv: []string{"git", "-C", dir, "status", "--porcelain"}})
			if _, err := os.Stat(started); err != nil && name != "a submodule" {
				t.Errorf("the test proves nothing: %v", err)
			}
		})
	}
}

// touch makes a file look changed, and leaves its content.
func touch(t *testing.T, file string) {
	t.Helper()
	text := readFile(t, file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTheEnvironmentSaysNothingOfTheRepository has another repository, index and configuration in git's variables.
func TestTheEnvironmentSaysNothingOfTheRepository(t *testing.T) {
	dir, other, started := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "started")
	write(t, dir, map[string]string{"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`, "a": "a"})
	repository(t, dir)
	write(t, other, map[string]string{"b": "b"})
	repository(t, other)
	head := git(t, dir, "rev-parse", "HEAD")
	program := canary(t, started, "external")
	trace := filepath.Join(t.TempDir(), "trace")
	for name, value := range map[string]string{
		"GIT_DIR": filepath.Join(other, ".git"), "GIT_WORK_TREE": other, "GIT_INDEX_FILE": filepath.Join(other, ".git/index"),
		"GIT_COMMON_DIR": filepath.Join(other, ".git"), "GIT_OBJECT_DIRECTORY": filepath.Join(other, ".git/objects"),
		"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.worktree", "GIT_CONFIG_VALUE_0": other, "GIT_NAMESPACE": "x",
		"GIT_EXTERNAL_DIFF": program, "GIT_SSH_COMMAND": program, "GIT_ASKPASS": program, "GIT_TRACE": trace, "GIT_TRACE2_EVENT": trace,
		"GIT_CONFIG_PARAMETERS": "'core.worktree'='" + other + "'", "GIT_LITERAL_PATHSPECS": "1", "GIT_PREFIX": "x/",
	} {
		t.Setenv(name, value)
	}
	inv, _ := open(t, dir, Options{})
	if inv.Source.Revision != head || inv.Source.Dirty || inv.Root != dir {
		t.Errorf("got %s, %+v", inv.Root, inv.Source)
	}
	compare(t, list(t, string(inv.Source.Path)), map[string]string{"ferry.nix": "file { nixpkgs = 1; nodes = { }; }", "a": "file a"})
	for _, file := range []string{started, trace} {
		if text, err := os.ReadFile(file); err == nil {
			t.Errorf("%s: %s", file, text)
		}
	}
}

// TestWhatGitCallsNoRepositoryIsAPlainFolder says so, and takes what is there.
func TestWhatGitCallsNoRepositoryIsAPlainFolder(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"an empty folder":          func(dir string) error { return os.Mkdir(filepath.Join(dir, ".git"), 0o755) },
		"a file that says nothing": func(dir string) error { return os.WriteFile(filepath.Join(dir, ".git"), []byte("x\n"), 0o644) },
		"a work tree's lost": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, ".git"), []byte("gitdir: /nowhere\n"), 0o644)
		},
		"a link that leads nowhere":   func(dir string) error { return os.Symlink("nowhere", filepath.Join(dir, ".git")) },
		"a repository without a HEAD": func(dir string) error { return os.MkdirAll(filepath.Join(dir, ".git/objects"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`, "a": "a"})
			if err := make(dir); err != nil {
				t.Fatal(err)
			}
			inv, notes := open(t, dir, Options{})
			if inv.Source.Revision != "" || !strings.Contains(notes.all(), "is no git repository") {
				t.Errorf("got %+v, notes %q", inv.Source, notes.all())
			}
			if _, err := os.Stat(string(inv.Source.Path) + "/a"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("in a work tree", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"in/ferry.nix": `{ nixpkgs = 1; nodes = { }; }`, "in/.git/": ""})
		repository(t, dir)
		inv, _ := open(t, filepath.Join(dir, "in"), Options{})
		if inv.Root != dir || inv.Source.Revision == "" {
			t.Errorf("got %s, %+v", inv.Root, inv.Source)
		}
	})
	t.Run("a repository that git cannot read", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`})
		repository(t, dir)
		write(t, dir, map[string]string{".git/config": "[core]\n\trepositoryformatversion = 99\n"})
		if e := openError(t, dir, Options{}); !strings.Contains(e.Error(), "git work tree") {
			t.Errorf("got %q", e)
		}
	})
}
