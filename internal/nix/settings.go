package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"ferry/internal/run"
)

// Settings are those of Nix's settings that ferry cares about, as nix.conf and the [Options] make them.
type Settings struct {
	System         string   // what this machine is, "x86_64-linux"
	ExtraPlatforms []string // what it builds besides, natively or through an emulator
	SystemFeatures []string
	Builders       string // remote builders, or "@FILE" that lists them, which need not exist
	MaxJobs        int    // builds at once on this machine; 0 is none
	Substituters   []string
}

// Builds tells whether this machine itself is said to build for system. That an emulator works is a different matter;
// see [Client.CanBuild].
func (s Settings) Builds(system string) bool {
	return s.System == system || slices.Contains(s.ExtraPlatforms, system)
}

// Settings asks Nix.
func (c *Client) Settings(ctx context.Context) (Settings, error) {
	// The command was renamed in Nix 2.20; neither name works in all versions and editions, so the other one is tried too.
	names := [][]string{{"config", "show"}, {"show-config"}}
	if v, err := c.Version(ctx); err == nil && v.Major == 2 && v.Minor < 20 {
		slices.Reverse(names)
	}
	var out string
	var err error
	for _, name := range names {
		out, err = c.output(ctx, c.command("nix", slices.Concat([]string{"--extra-experimental-features", "nix-command"}, name, []string{"--json"})...))
		var failed *run.Error
		if !errors.As(err, &failed) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read Nix's settings: %w", err)
	}
	s, err := parseSettings([]byte(out))
	if err != nil {
		return Settings{}, fmt.Errorf("read Nix's settings: %w", err)
	}
	return s, nil
}

func parseSettings(b []byte) (Settings, error) {
	var all map[string]struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return Settings{}, err
	}
	var s Settings
	for name, to := range map[string]any{
		"system":          &s.System,
		"extra-platforms": &s.ExtraPlatforms,
		"system-features": &s.SystemFeatures,
		"builders":        &s.Builders,
		"max-jobs":        &s.MaxJobs,
		"substituters":    &s.Substituters,
	} {
		setting, found := all[name]
		if !found {
			return Settings{}, fmt.Errorf("the setting %s is missing", name)
		}
		if err := json.Unmarshal(setting.Value, to); err != nil {
			return Settings{}, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return s, nil
}
