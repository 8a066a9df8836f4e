package nix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"ferry/internal/run"
)

// probeExpression makes the derivation that tells whether a system is built for. It is never fetched, and not kept from
// a remote builder.
const probeExpression = `{ probe, system, salt }: derivation {
  name = "ferry-probe-${system}";
  inherit system salt;
  builder = builtins.path { path = probe; name = "ferry-probe"; };
  args = [ "build-probe" ];
  preferLocalBuild = false;
  allowSubstitutes = false;
}`

// CanBuild tells whether derivations for system can be built from here: natively, through an emulator or by a remote
// builder. The error is a [*PlatformError] if not.
//
// What a setting promises is not believed, unless it is the machine's own system: a derivation for system is built whose
// builder is probe, a static program for that system that makes $out when called with the argument build-probe. Nix
// remembers a success until the machine boots again or the settings or emulators that matter change;
// c does so for good, and asks nobody again.
func (c *Client) CanBuild(ctx context.Context, system, probe string) error {
	if c.HasBuilt(system) {
		return nil
	}
	settings, err := c.Settings(ctx)
	if err != nil {
		return fmt.Errorf("find out whether %s can be built: %w", system, err)
	}
	if settings.MaxJobs != 0 && settings.native(system) {
		return nil
	}
	if err := c.buildProbe(ctx, system, probe, settings); err != nil {
		return fmt.Errorf("find out whether %s can be built: %w", system, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buildable == nil {
		c.buildable = map[string]bool{}
	}
	c.buildable[system] = true
	return nil
}

// HasBuilt tells whether [Client.CanBuild] has found that out by a build already.
func (c *Client) HasBuilt(system string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buildable[system]
}

// TestBuild is [Client.CanBuild] that believes no setting at all: the tiny derivation is built for the machine's own system
// too. What keeps every build here from working is a [*BuildError] or a [*PlatformError].
func (c *Client) TestBuild(ctx context.Context, system, probe string) error {
	settings, err := c.Settings(ctx)
	if err == nil {
		err = c.buildProbe(ctx, system, probe, settings)
	}
	if err != nil {
		return fmt.Errorf("find out whether %s can be built: %w", system, err)
	}
	return nil
}

// native tells whether the processor itself runs programs for system.
func (s Settings) native(system string) bool {
	return system == s.System || s.System == "x86_64-linux" && system == "i686-linux" && s.Builds(system)
}

func (c *Client) buildProbe(ctx context.Context, system, probe string, settings Settings) error {
	probe, err := filepath.Abs(probe)
	if err != nil {
		return err
	}
	cmd := c.command("nix-instantiate", "-E", probeExpression,
		"--argstr", "probe", probe, "--argstr", "system", system, "--argstr", "salt", settings.salt())
	drv, err := c.instantiateKept(ctx, cmd)
	if err != nil {
		return err
	}
	cmd = c.command("nix-store", "--realise", string(drv), "--log-format", "internal-json")
	log := newBuildLog(nil)
	lines := &lineWriter{each: log.line}
	cmd.Err = lines
	err = c.run(ctx, cmd)
	lines.end()
	if err == nil {
		return nil
	}
	err = c.explain(ctx, log, err)
	var failed *BuildError
	var platform *PlatformError
	switch {
	case errors.As(err, &platform):
		platform.Reason = fmt.Sprintf("this machine builds for %s, and no remote builder is known that does",
			strings.Join(append([]string{settings.System}, settings.ExtraPlatforms...), ", "))
		return platform
	case errors.As(err, &failed):
		return &PlatformError{System: system, Reason: "a test build for it fails: " + failed.because(), err: failed}
	}
	return err
}

// Tries is how often something is evaluated that is collected as garbage before it can be kept.
const Tries = 8

// instantiateKept runs a nix-instantiate that prints one derivation, which is kept.
func (c *Client) instantiateKept(ctx context.Context, cmd run.Command) (drv StorePath, err error) {
	for range Tries {
		out, err := c.output(ctx, cmd)
		if err != nil {
			return "", err
		}
		if drv, err = ParseStorePath(out); err != nil {
			return "", err
		}
		if kept, err := c.Keep(ctx, drv); err != nil || kept {
			return drv, err
		}
	}
	return "", &CollectedError{Path: drv}
}

// CollectedError is something that was collected as garbage as soon as it was made, every time.
type CollectedError struct{ Path StorePath }

func (e *CollectedError) Error() string {
	return fmt.Sprintf("%s is collected as garbage as soon as it is there", e.Path)
}

// Hints says what the user can do about it.
func (e *CollectedError) Hints() []string {
	return []string{"something runs nix-store --gc here again and again: look at the setting min-free, and at timers"}
}

// because is the most telling line of e.
func (e *BuildError) because() string {
	if len(e.Derivations) > 0 {
		d := e.Derivations[0]
		for _, l := range d.LastLines {
			if strings.Contains(l, "Exec format error") {
				return "its programs cannot be run (exec format error)"
			}
		}
		if n := len(d.LastLines); n > 0 {
			return d.LastLines[n-1]
		}
	}
	return e.Error()
}

// salt stands for everything that could make a build for another system stop working: a boot, which forgets emulators
// that were registered by hand, the settings, and the emulators themselves.
func (s Settings) salt() string {
	h := sha256.New()
	fmt.Fprintln(h, s.System, s.ExtraPlatforms, s.Builders, s.MaxJobs)
	files := []string{"/proc/sys/kernel/random/boot_id", strings.TrimPrefix(s.Builders, "@")}
	emulators, _ := filepath.Glob("/proc/sys/fs/binfmt_misc/*")
	for _, name := range append(files, emulators...) {
		fmt.Fprintln(h, name)
		hashFile(h, name)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hashFile adds the start of a file to h. One that cannot be read counts as empty: an error would gain nothing, as the
// probe is built in any case.
func hashFile(h io.Writer, name string) {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() || strings.HasSuffix(name, "/register") {
		return
	}
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = io.CopyN(h, f, 64<<10)
}
