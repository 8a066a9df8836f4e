package nixos_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// install makes a system the one that the host has been installed with, and has booted.
func (h *host) install(t *testing.T, toplevel string) {
	t.Helper()
	if err := h.InstallSystem(t.Context(), h.builder, toplevel); err != nil {
		t.Fatal(err)
	}
}

// addresses lists what host0 has.
func (h *host) addresses(t *testing.T) string {
	t.Helper()
	return h.out(t, "sh", "-c", "ip -4 -oneline address show dev host0 | awk '{ print $4 }' | sort | tr '\\n' ' '")
}

// gateway is where the default route of the host leads.
func (h *host) gateway(t *testing.T) string {
	t.Helper()
	return h.out(t, "sh", "-c", "ip route show default | awk '{ print $3 }'")
}

// answers says whether another machine gets a greeting from the host's sshd.
func (h *host) answers(t *testing.T) bool {
	t.Helper()
	return h.builder.Command(t.Context(), "timeout", "2", "bash", "-c",
		fmt.Sprintf("read -r -n 4 word </dev/tcp/%s/22 && test \"$word\" = SSH-", h.Addr())).Run() == nil
}

// expectAnswer waits for such a greeting: a link that has come up again lets the first packets fall.
func (h *host) expectAnswer(t *testing.T) {
	t.Helper()
	for range 10 {
		if h.answers(t) {
			return
		}
	}
	t.Errorf("sshd does not answer: %s", h.out(t, "sh", "-c", "ip address; ip route"))
}

// static is a configuration with addresses and a gateway of its own.
func (h *host) static(addresses ...string) string {
	var list strings.Builder
	for _, address := range addresses {
		fmt.Fprintf(&list, "{ address = %q; prefixLength = 24; } ", address)
	}
	return fmt.Sprintf("networking.interfaces.host0.ipv4.addresses = [ %s]; networking.defaultGateway = %q;",
		list.String(), h.Gateway())
}

func TestAddressesFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	own := h.Addr().String()
	other := strings.TrimSuffix(own, ".2") + ".99"
	steps := []struct {
		name, config, addresses string
		routed                  bool
	}{
		{"of its own, which is the one it has", h.static(own), own + "/24", true},
		{"one more", h.static(own, other), own + "/24 " + other + "/24", true},
		{"another", h.static(other), other + "/24", true},
		{"the network's", "", own + "/24", true},
		{"none", "networking.useDHCP = false;", "", false},
		{"of its own again", h.static(own), own + "/24", true},
	}
	for _, step := range steps {
		h.switchTo(t, h.build(t, step.config), "test").expect(t, 0)
		if got := h.addresses(t); got != step.addresses {
			t.Errorf("%s: addresses %q, want %q", step.name, got, step.addresses)
		}
		if got := h.gateway(t) != ""; got != step.routed {
			t.Errorf("%s: a default route: %v, want %v", step.name, got, step.routed)
		}
		if strings.Contains(step.addresses, own+"/") {
			h.expectAnswer(t)
		} else if h.answers(t) {
			t.Error("it answers at an address that it should not have")
		}
		if t.Failed() {
			t.Fatalf("in step %q", step.name)
		}
	}
}

func TestAStoppedAddressUnitTakesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	const other = "192.0.2.9/24"
	h.install(t, h.build(t, h.static(h.Addr().String())))
	h.out(t, "ip", "address", "add", other, "dev", "host0")
	h.out(t, "systemctl", "stop", "network-addresses-host0.service")
	if got := h.addresses(t); got != other {
		t.Errorf("addresses %q, want only that which somebody else has added", got)
	}
	h.out(t, "systemctl", "start", "network-addresses-host0.service")
	h.expectAnswer(t)
}

func TestAnOldSystemThatIsActivatedAgainBringsTheNetworkBack(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	own := h.static(h.Addr().String())
	const cut = `systemd.services.cut = { wantedBy = [ "multi-user.target" ]; after = [ "network-setup.service" ];
		path = [ pkgs.iproute2 ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; }; script = %q; preStop = %q; };`
	for name, c := range map[string]struct{ before, cut string }{
		"a wrong address":      {own, h.static(strings.TrimSuffix(h.Addr().String(), ".2") + ".99")},
		"an address forgotten": {own, "networking.useDHCP = false;"},
		"no network":           {"", "networking.useDHCP = false;"},
		"a blackhole": {"", fmt.Sprintf(cut, "ip route add blackhole "+h.Gateway().String()+"/32",
			"ip route del blackhole "+h.Gateway().String()+"/32")},
		"the link down": {own, own + fmt.Sprintf(cut, "ip link set dev host0 down", "ip link set dev host0 up")},
	} {
		t.Run(name, func(t *testing.T) {
			old := h.build(t, c.before)
			h.install(t, old)
			h.expectAnswer(t)
			h.switchTo(t, h.build(t, c.cut), "test").expect(t, 0)
			if h.answers(t) {
				t.Error("it still answers")
			}
			h.switchTo(t, old, "test").expect(t, 0)
			h.expectAnswer(t)
		})
	}
}

func TestWhatAConfigurationDidToTheNetworkEndsWithThePower(t *testing.T) {
	t.Parallel()
	h := newHost(t, lab.Options{})
	h.install(t, h.build(t, ""))
	h.switchTo(t, h.build(t, fmt.Sprintf(`networking.useDHCP = false; networking.localCommands = ''
		ip address add 192.0.2.9/24 dev host0
		ip route add blackhole %s/32
	'';`, h.Gateway())), "test").expect(t, 0)
	// The unit is pulled in by another one, and no job of the switch waits for it.
	h.out(t, "systemctl", "start", "network-local-commands.service")
	if got := h.addresses(t); got != "192.0.2.9/24" || h.answers(t) {
		t.Fatalf("with addresses %q it answers", got)
	}
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := h.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.expectAnswer(t)
	if got := h.out(t, "ip", "route", "show", "type", "blackhole"); got != "" {
		t.Errorf("after a power cut there is still %q", got)
	}
}
