package session

import (
	"context"
	"fmt"
	"os"

	"ferry/internal/nix"
)

// Instantiate evaluates here as plain nixos-rebuild would on the node.
func (v *Visit) Instantiate(ctx context.Context, nixpkgs, configuration string) (nix.StorePath, error) {
	log := v.Lines(Evaluate)
	defer log.Flush()
	return v.Nix.InstantiateSystem(ctx, nixpkgs, configuration, v.Node.System, log)
}

// instantiateBundle evaluates here what a bundle was made of.
func (v *Visit) instantiateBundle(ctx context.Context, bundle nix.StorePath) (nix.StorePath, error) {
	attribute := manifestOf(bundle).Attribute
	if attribute == "" {
		return v.Instantiate(ctx, string(bundle)+"/nixpkgs", string(bundle)+"/configuration.nix")
	}
	log := v.Lines(Evaluate)
	defer log.Flush()
	return v.Nix.InstantiateFile(ctx, string(bundle)+"/default.nix", attribute, log)
}

// DerivationOf finds the derivation of a toplevel on this machine, by what the store remembers or by evaluating its bundle
// again; "": it is not to be found.
func (v *Visit) DerivationOf(ctx context.Context, bundle, toplevel nix.StorePath) (nix.StorePath, error) {
	drv, err := v.Deriver(ctx, toplevel)
	if err != nil {
		return "", v.Fail(Evaluate, Unchanged, err)
	}
	if drv != "" {
		return drv, nil
	}
	// What it is evaluates programs of its own choice: only what ferry itself has made.
	if !v.IsOurs(ctx, bundle, toplevel) {
		return "", nil
	}
	again, err := v.instantiateBundle(ctx, bundle)
	if err != nil {
		return "", v.Fail(Evaluate, Unchanged, err)
	}
	if !makes(again, toplevel) {
		return "", nil
	}
	return again, nil
}

// makes tells whether a derivation is here and makes a path.
func makes(drv, p nix.StorePath) bool {
	if drv == "" {
		return false
	}
	d, err := ReadDerivation(drv)
	return err == nil && d.Outputs["out"].Path == p
}

// ReadDerivation reads a derivation of this machine's store.
func ReadDerivation(drv nix.StorePath) (*nix.Derivation, error) {
	text, err := os.ReadFile(string(drv))
	if err != nil {
		return nil, err
	}
	d, err := nix.ParseDerivation(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", drv, err)
	}
	return d, nil
}

// ReadDerivations is a [cause.Source] of this machine's store.
func ReadDerivations(_ context.Context, drvs []nix.StorePath) (map[nix.StorePath]string, error) {
	texts := map[nix.StorePath]string{}
	for _, drv := range drvs {
		if text, err := os.ReadFile(string(drv)); err == nil {
			texts[drv] = string(text)
		}
	}
	return texts, nil
}

// Deriver is the derivation that a path was made by, if it is here.
func (v *Visit) Deriver(ctx context.Context, p nix.StorePath) (nix.StorePath, error) {
	local, err := v.Nix.OpenServe(ctx)
	if err != nil {
		return "", err
	}
	defer local.Close()
	infos, err := local.PathInfos([]nix.StorePath{p})
	if err != nil || len(infos) == 0 || !makes(infos[0].Deriver, p) {
		return "", err
	}
	return infos[0].Deriver, nil
}
