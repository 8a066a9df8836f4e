package session

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// BundleLink is where a link of a bundle that is here leads, "" if it is none or not here.
func BundleLink(bundle nix.StorePath, name string) nix.StorePath {
	to, err := os.Readlink(string(bundle) + "/" + name)
	if err != nil {
		return ""
	}
	path, err := nix.ParseStorePath(to)
	if err != nil {
		return ""
	}
	return path
}

// IsOurs tells whether a bundle that the target has named is one that ferry has made here for this node and this system. Whatever else is in
// this machine's store is none of the target's business: it is neither kept nor evaluated because the target says so.
func (v *Visit) IsOurs(ctx context.Context, bundle, toplevel nix.StorePath) bool {
	if bundle == "" || toplevel == "" || bundle.IsDerivation() || BundleLink(bundle, "profile") != toplevel || manifestOf(bundle).Node != v.Node.Name {
		return false
	}
	valid, err := v.Nix.Valid(ctx, bundle)
	return err == nil && valid
}

// manifestOf is what a bundle that is here says of itself; the zero value if it is none.
func manifestOf(bundle nix.StorePath) (m agent.Manifest) {
	text, err := SystemFile(bundle, "ferry.json")
	if err != nil || json.Unmarshal([]byte(text), &m) != nil {
		return agent.Manifest{}
	}
	return m
}

// MaxSystemFile is how much of a system's file is read, in bytes: as much as the agent tells.
const MaxSystemFile = 64 << 10

// SystemFile reads a file of a system or bundle that is in this machine's store.
func SystemFile(toplevel nix.StorePath, name string) (string, error) {
	file, err := os.Open(string(toplevel) + "/" + name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MaxSystemFile+1))
	if err == nil && len(text) > MaxSystemFile {
		err = fmt.Errorf("%s of %s is larger than %d bytes", name, toplevel, MaxSystemFile)
	}
	return string(text), err
}

// SwitchScript is where a bundle has its own way to switch.
const SwitchScript = "/nixos-rebuild-switch"
