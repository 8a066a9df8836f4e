package status

import (
	"strings"
	"time"
)

// nixosVersion is what a version of NixOS's says of the nixpkgs that it is from. What it does not say is empty or zero.
type nixosVersion struct {
	release  string    // 25.05, with "pre" or the like
	revision string    // of nixpkgs, shortened
	date     time.Time // of that revision
}

// parseNixOSVersion reads a version: 24.05.7376.b134951a4c9f and 24.11pre711046.8edf06bea5bc are from channels,
// 25.05.20250601.b134951 from a flake, 25.05.git.b134951a4c9fM from a checkout, 25.05pre-git from a bare tree.
func parseNixOSVersion(version string) nixosVersion {
	parts := strings.Split(version, ".")
	if len(parts) < 2 {
		return nixosVersion{release: version}
	}
	minor, suffix := parts[1], ""
	if i := strings.Index(minor, "pre"); i > 0 {
		minor, suffix = minor[:i], "pre"
	}
	v := nixosVersion{release: parts[0] + "." + minor + suffix}
	for _, part := range parts[2:] {
		if day, err := time.Parse("20060102", part); err == nil && day.Year() >= 2003 {
			v.date = day
			continue
		}
		part = strings.TrimSuffix(part, "M")
		if len(part) >= 7 && len(part) <= 40 && strings.Trim(part, "0123456789abcdef") == "" {
			v.revision = part
		}
	}
	return v
}
