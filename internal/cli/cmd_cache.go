package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"ferry/internal/inventory"
	"ferry/internal/prose"

	"github.com/spf13/cobra"
)

// cacheOptions are the flags of ferry cache.
type cacheOptions struct{ clear, json bool }

func (a *app) cacheCommand() *cobra.Command {
	var o cacheOptions
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show or clear the cache of evaluations",
		Long: `Show how many evaluations are kept on this machine and how much space they take, or remove them with --clear.

A pure evaluation depends only on the source, the pin, the system, ferry's own Nix expressions, and Nix's version and
settings. While all of these are the same, and its derivations are still in the store, ferry reuses its result, warnings
included. Impure evaluations and failed ones are not kept. With --no-cache, a command evaluates again.

The cache is $XDG_CACHE_HOME/ferry/evaluations (~/.cache). Entries that were not used for 60 days are removed.

With --json the output is one object: folder, evaluations (how many) and bytes.`,
		Example: `  ferry cache
  ferry cache --clear`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.runCache(o) },
	}
	cmd.Flags().BoolVar(&o.clear, "clear", false, "remove all of them")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (a *app) runCache(o cacheOptions) error {
	cache := inventory.Cache{Dir: a.cacheFolder()}
	if cache.Dir == "" {
		return errors.New("neither XDG_CACHE_HOME nor HOME is set: no evaluations are kept")
	}
	if o.clear {
		if err := cache.Clear(); err != nil {
			return err
		}
	}
	n, bytes, err := cache.Count()
	if err != nil {
		return err
	}
	if !o.json {
		_, err = fmt.Fprintf(a.Out, "%s: %s, %s\n", cache.Dir, prose.Count(n, "evaluation"), prose.Size(uint64(bytes)))
		return err
	}
	return json.NewEncoder(a.Out).Encode(struct {
		Folder      string `json:"folder"`
		Evaluations int    `json:"evaluations"`
		Bytes       int64  `json:"bytes"`
	}{cache.Dir, n, bytes})
}
