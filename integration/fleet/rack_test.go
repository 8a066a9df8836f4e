package fleet_test

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

var rackSize = flag.Int("rack", 10, "how many machines the rack has, ten at least")

// breakShip makes the target's nix-store end when it has been given half a megabyte, and gives what mends it.
func breakShip(s *site.Site) (mend func()) {
	s.T.Helper()
	s.OnTarget("sh", "-euc", `mkdir /usr/lib/real-nix
ln -s "$(readlink -f /usr/bin/nix-store)" /usr/lib/real-nix/nix-store
rm /usr/bin/nix-store
cat >/usr/bin/nix-store <<'EOF'
#!/bin/sh
case $1 in
--serve) perl -e 'while ($sum < 500000 && (my $n = sysread STDIN, my $b, 65536)) { syswrite STDOUT, $b; $sum += $n }' | /usr/lib/real-nix/nix-store "$@";;
*) exec /usr/lib/real-nix/nix-store "$@";;
esac
EOF
chmod 755 /usr/bin/nix-store`)
	return func() { s.OnTarget("mv", "/usr/lib/real-nix/nix-store", "/usr/bin/nix-store") }
}

// TestARackOfMachines deploys to many machines at once, of two releases and, if they are twenty, two architectures. One fails in each step: all others get
// what they were to get, and in the end those as well.
func TestARackOfMachines(t *testing.T) {
	t.Parallel()
	c := &crew{Site: site.New(t, site.Options{Builder: lab.BuilderOptions{Aarch64: true}})}
	c.nodes = []*member{{name: "n01", site: c.Site}}
	for i := 2; i <= *rackSize-2; i++ {
		c.join(fmt.Sprintf("n%02d", i), lab.Options{})
	}
	c.join("trixie", lab.Options{Suite: "trixie"})
	if *rackSize >= 20 {
		c.join("arm", lab.Options{System: "aarch64-linux"})
	} else {
		c.join("n00", lab.Options{})
	}
	c.member("n02").more = failsToEvaluate
	c.member("n03").more = failsToBuild
	c.member("n04").target = `"alice@nowhere.invalid"`
	c.member("n05").more = site.Data("rack", 4, 400_000)
	mendShip := breakShip(c.member("n05").site)
	c.member("n06").more = `system.activationScripts.broken = "false";`
	c.member("n07").attributes = failsItsCheck
	second := c.member("n08")
	second.target = fmt.Sprintf(`[ "alice@nowhere.invalid" "alice@%s" ]`, second.site.Target.Name())
	c.plan("rack")

	o := c.deploy("--all", "--parallel", "6")
	c.ends(o, 4)
	o.Says(t, "ferry: error: n02: evaluate: not today", "ferry: error: n03: build: broken failed with exit code 3", "ferry: error: n04: connect: ",
		"ferry: error: n05: ship: ", "ferry: error: n06: activate: ", "ferry: error: n07: check: ",
		fmt.Sprintf("ferry: %d nodes: %d done, 3 failed (unchanged), 1 unreachable, 2 rolled back\n", *rackSize, *rackSize-6),
		"ferry: failed (unchanged): n02, n03, n05\n", "ferry: unreachable: n04\n", "ferry: rolled back: n06, n07\n")
	want := map[string]string{}
	for i, m := range c.nodes {
		if want[m.name] = "rack " + m.name; i >= 1 && i <= 6 {
			want[m.name] = "installed"
		}
	}
	c.greet(want)

	// The rest, in three batches, in the order of the inventory.
	mendShip()
	for _, name := range []string{"n02", "n03", "n04", "n05", "n06", "n07"} {
		m := c.member(name)
		m.more, m.attributes, m.target = "", "", ""
		want[name] = "rack " + name
	}
	c.plan("rack")
	before := c.member("n01").site.State()
	o = c.deploy("--resume", "--batch", "1,2,rest")
	c.ends(o, 0)
	o.Says(t, "ferry: 6 nodes: 6 done\n", "ferry: batch 2 of 3: 2 nodes\n", "ferry: batch 3 of 3: 3 nodes\n")
	c.greet(want)
	c.member("n01").site.Want(c.member("n01").site.State(), before)
	order := regexp.MustCompile(`(?m)^n\d\d: activate |^ferry: batch \d`).FindAllString(o.Errors, -1)
	if len(order) < 6 {
		t.Fatalf("it went in the order %q", order)
	}
	slices.Sort(order[3:5])
	if got := strings.Join(order[:6], ""); got != "ferry: batch 1n02: activate ferry: batch 2n03: activate n04: activate ferry: batch 3" {
		t.Errorf("it went in the order %q", order)
	}
}
