package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// NixpkgsPath is where the lab's nixpkgs is on every building machine: lab/nixpkgs of the checkout with its binaries.
// It cannot be written there; copy it to change it.
const NixpkgsPath = assembledPath + "/nixpkgs"

// assembledPath is where what assemble makes is on a building machine.
const assembledPath = "/srv"

// Nixpkgs returns lab/nixpkgs of the checkout for this machine's own Nix, made complete by its script assemble and kept beside
// the base roots under a name that changes with it. Making it takes a second, and the first time it downloads 2 MB.
func Nixpkgs(ctx context.Context) (string, error) {
	path, err := assemble(ctx, "nixpkgs-here-", func(kept string) string { return kept })
	return filepath.Join(path, "nixpkgs"), err
}

// assembled is the same for building machines, with the programs beside it that it fetches from there.
func assembled(ctx context.Context) (string, error) {
	return assemble(ctx, "nixpkgs-", func(string) string { return assembledPath })
}

// assemble runs the script of that name once for each state of lab/nixpkgs. place says where it will be found, given the folder in
// which it is kept.
func assemble(ctx context.Context, prefix string, place func(kept string) string) (string, error) {
	tree, err := findNixpkgs()
	if err != nil {
		return "", fmt.Errorf("lab's nixpkgs: %w", err)
	}
	sum, err := hashTree(tree)
	if err != nil {
		return "", fmt.Errorf("lab's nixpkgs: %w", err)
	}
	cache, err := cacheFolder()
	if err != nil {
		return "", fmt.Errorf("lab's nixpkgs: %w", err)
	}
	path := filepath.Join(cache, prefix+sum)
	err = makeOnce(ctx, path, func(fresh string) error {
		return quietly(exec.CommandContext(ctx, filepath.Join(tree, "assemble"), fresh, place(path)))
	})
	if err != nil {
		return "", fmt.Errorf("lab's nixpkgs: %w", err)
	}
	return path, nil
}

// findNixpkgs looks for lab/nixpkgs above the current folder, where tests are, and above this program, which is in bin.
func findNixpkgs() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, start := range []string{here, filepath.Dir(program)} {
		for dir := start; ; dir = filepath.Dir(dir) {
			tree := filepath.Join(dir, "lab/nixpkgs")
			if _, err := os.Stat(filepath.Join(tree, "assemble")); err == nil {
				return tree, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("no folder above this one has lab/nixpkgs: run this in ferry's checkout")
}

// hashTree hashes names, modes and contents of a folder.
func hashTree(root string) (string, error) {
	hash := sha256.New()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(hash, "%q %o %d\n", path[len(root):], info.Mode(), len(text))
		hash.Write(text)
		return nil
	})
	return hex.EncodeToString(hash.Sum(nil)[:6]), err
}
