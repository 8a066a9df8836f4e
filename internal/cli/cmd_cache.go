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
		Long: `Show how many evaluations are kept on this machine and what room they take, or remove them with --clear.

A pure evaluation depends on the source, the pin, the system, ferry's own Nix expressions, and Nix's version and settings,
and on nothing else. As long as all of them are the same, and what it made is still in the store, it need not be done
again: ferry takes what it gave, warnings included. Impure evaluations and those that failed are not kept. With
--no-cache, a command evaluates again.

The cache is $XDG_CACHE_HOME/ferry/evaluations (~/.cache). What was not used for 60 days goes away by itself.

With --json it is one object: folder, evaluations (how many) and bytes.`,
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
