package nix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	// Evaluation is a hash of all settings that may matter to an evaluation: of all but those that only say how things are
	// built and fetched.
	Evaluation string
}

// building are settings that no evaluation can tell.
var building = []string{
	"build-cores", "builders", "build-max-jobs", "cores", "http-connections", "keep-failed", "keep-going", "max-jobs", "max-substitution-jobs",
	"substitute", "substituters", "trusted-public-keys", "trusted-substituters",
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

// setting is one of them as Nix prints it.
type setting struct {
	Value json.RawMessage `json:"value"`
}

func evaluationHash(all map[string]setting) string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(building, name) {
			fmt.Fprintf(sum, "%q %q\n", name, all[name].Value)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func parseSettings(b []byte) (Settings, error) {
	var all map[string]setting
	if err := json.Unmarshal(b, &all); err != nil {
		return Settings{}, err
	}
	s := Settings{Evaluation: evaluationHash(all)}
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
