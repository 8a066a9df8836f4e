package lockout

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"
)

// TestSudoersAreReadLikeSudo locks what rules are taken for; what is not understood is never a no.
func TestSudoersAreReadLikeSudo(t *testing.T) {
	for text, want := range map[string]grant{
		"":                                  {no, no},
		"alice ALL=(ALL) ALL":               {yes, no},
		"alice ALL=(ALL:ALL) NOPASSWD: ALL": {yes, yes},
		"alice ALL=(ALL:ALL) NOPASSWD:SETENV: ALL":                            {yes, yes},
		"%wheel ALL=(ALL:ALL) NOPASSWD: ALL, SETENV: ALL":                     {yes, yes},
		"%wheel      ALL=(ALL:ALL)    SETENV: ALL":                            {yes, no},
		"%admins ALL=(ALL) ALL":                                               {no, no},
		"%#1 ALL=(ALL) ALL":                                                   {perhaps, perhaps},
		"#1000 ALL=(ALL) ALL":                                                 {yes, no},
		"#1001 ALL=(ALL) ALL":                                                 {no, no},
		"bob, alice ALL = (root) ALL":                                         {yes, no},
		"ALL, !alice ALL=(ALL) ALL":                                           {no, no},
		"ALL, !+net ALL=(ALL) ALL":                                            {perhaps, perhaps},
		"alice pi=(ALL) ALL":                                                  {perhaps, perhaps},
		"alice ALL=(postgres) ALL":                                            {no, no},
		"alice ALL=(postgres, root : wheel) ALL":                              {yes, no},
		"alice ALL=(!root) ALL":                                               {perhaps, perhaps},
		"alice ALL=ALL":                                                       {yes, no},
		"alice ALL=(ALL) /bin/sh":                                             {perhaps, perhaps},
		"alice ALL=(ALL) ALL, !/bin/sh":                                       {perhaps, no},
		"alice ALL=(ALL) ALL\nalice ALL=(ALL) !ALL":                           {no, no},
		"alice ALL=(ALL) ALL\nalice ALL=(ALL) NOPASSWD: /bin/reboot":          {yes, perhaps},
		"alice ALL=(ALL) CWD=* ALL":                                           {perhaps, perhaps},
		"alice a=(ALL) ALL : ALL=(ALL) ALL":                                   {perhaps, perhaps},
		"User_Alias A = bob, \\\n alice : B = carol\nA ALL=(ALL) ALL":         {yes, no},
		"User_Alias A = A\nA ALL=(ALL) ALL":                                   {perhaps, perhaps},
		"User_Alias B = carol\nB ALL=(ALL) ALL":                               {no, no},
		"Runas_Alias R = root\nalice ALL=(R) ALL":                             {perhaps, perhaps},
		"%domain\\ admins ALL=(ALL) ALL":                                      {perhaps, perhaps},
		"# alice ALL=(ALL) ALL\nDefaults env_keep+=X # alice ALL=(ALL) ALL\n": {no, no},
		"Defaults !authenticate\nalice ALL=(ALL) ALL":                         {yes, perhaps},
		"@include /var/rules":                                                 {no, no},
		"#includedir /var/rules":                                              {perhaps, perhaps},
		"@include %h":                                                         {perhaps, perhaps},
		"@include more":                                                       {yes, no},
		"@include /etc/more":                                                  {yes, no},
		"@include sudoers":                                                    {perhaps, perhaps},
		"#includedir /etc/rules.d":                                            {yes, yes},
	} {
		m := &fakeMachine{machinetest.New(t)}
		m.Write("/etc/sudoers", text+"\n")
		m.Write("/etc/more", "alice ALL=(ALL) ALL\n")
		m.Write("/etc/rules.d/10-alice", "alice ALL=(ALL) NOPASSWD: ALL\n")
		m.Write("/etc/rules.d/old.bak", "alice ALL=(ALL) !ALL\n")
		v := etcView{files: machine.NewFiles(m.Root), toplevel: string(newSystem)}
		rules, _ := v.readSudoers("sudoers")
		who := asker{user: "alice", uid: 1000, groups: []string{"users", "wheel"}, groupsKnown: true}
		if got := rules.give(who); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	rules := sudoers{lines: sudoersLines("%wheel ALL=(ALL) ALL")}
	if got := rules.give(asker{user: "alice", uid: 1000}); got.allowed != perhaps {
		t.Errorf("groups that are not known: %+v", got)
	}
}

// TestDoasRulesAreReadLikeDoas locks what rules are taken for.
func TestDoasRulesAreReadLikeDoas(t *testing.T) {
	for text, want := range map[string]grant{
		"":                                       {no, no},
		"permit :wheel":                          {yes, no},
		"permit nopass keepenv alice":            {yes, yes},
		"permit nopass setenv { A=1 -B} :wheel":  {yes, yes},
		"permit persist 1000 as root":            {yes, no},
		"permit alice as postgres":               {no, no},
		"permit alice cmd reboot":                {perhaps, perhaps},
		"permit :100":                            {perhaps, perhaps},
		"permit :wheel\ndeny alice":              {no, no},
		"permit :wheel # deny alice\npermit bob": {yes, no},
		"permit nopass":                          {no, no},
	} {
		if got := giveDoas(text, asker{user: "alice", uid: 1000, groups: []string{"wheel"}, groupsKnown: true}); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

// TestSSHDConfigIsReadLikeSSHD locks which line counts, and what is not sure.
func TestSSHDConfigIsReadLikeSSHD(t *testing.T) {
	m := &fakeMachine{machinetest.New(t)}
	m.Write("/etc/ssh/sshd_config", "# PermitRootLogin yes\nPermitRootLogin=no # a comment\nPermitRootLogin yes\nPORT 22\nport \"2222\"\n"+
		"Include sshd_config.d/*.conf\nAllowUsers alice bob\nMatch User bob\nPubkeyAuthentication no\nMatch all\nUseDNS yes\n")
	m.Write("/etc/ssh/sshd_config.d/1.conf", "AllowUsers carol\nMatch Address 10.0.0.0/8\nPasswordAuthentication no\n")
	m.Write("/etc/ssh/sshd_config.d/2.conf", "PrintMotd no\n")
	m.Write("/etc/ssh/sshd_config.d/3.off", "PermitEmptyPasswords yes\n")
	v := etcView{files: machine.NewFiles(m.Root), toplevel: string(newSystem)}
	s, found, outside := v.readSSHDConfig()
	if found != machine.Present || !outside || s.incomplete {
		t.Errorf("%v, %v, %+v", found, outside, s)
	}
	for keyword, want := range map[string]string{
		"permitrootlogin": "no", "port": "22 2222", "allowusers": "carol alice bob", "usedns": "yes", "printmotd": "no",
		"pubkeyauthentication": "?", "passwordauthentication": "?", "permitemptypasswords": "",
	} {
		words, known := s.words(keyword)
		got := strings.Join(words, " ")
		if !known {
			got = "?"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", keyword, got, want)
		}
	}
	m.Write("/etc/ssh/sshd_config", "Include /var/x*/y\nInclude sshd_config\n")
	if s, _, _ := v.readSSHDConfig(); !s.incomplete {
		t.Error("what cannot be read is taken for nothing")
	}
}

// TestEndpointsTakeTheConnectionsTheyWould locks where a server is thought to listen.
func TestEndpointsTakeTheConnectionsTheyWould(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.7:22"), netip.MustParseAddrPort("[2001:db8::7]:22")
	for config, want := range map[string]string{
		"":                               "46",
		"Port 23":                        "",
		"ListenAddress 0.0.0.0":          "4",
		"ListenAddress ::":               "6",
		"ListenAddress [::]:22\nPort 23": "6",
		"ListenAddress 192.0.2.7:22\nListenAddress 10.0.0.1": "4",
		"ListenAddress 192.0.2.7:23":                         "",
		"AddressFamily inet":                                 "4",
		"ListenAddress pi.lan":                               "?",
		"Port ssh":                                           "?",
		"ListenAddress 0.0.0.0 rdomain mgmt":                 "?",
	} {
		s := sshdSettings{values: map[string][]string{}, unsure: map[string]bool{}}
		etcView{}.parseSSHD(&s, config, false, 0)
		if got := accepts(s.endpoints())(four, six); got != want {
			t.Errorf("%q: %q, want %q", config, got, want)
		}
	}
	for unit, want := range map[string]string{
		"ListenStream=22": "46", "ListenStream=[::]:22": "46", "ListenStream=0.0.0.0:22": "4", "ListenStream=23": "",
		"ListenStream=23\nListenStream=\nListenStream= 22 ": "46", "ListenStream=/run/ssh\nListenStream=vsock::22": "", "ListenStream=what": "?",
	} {
		if got := accepts(parseSocket(unit))(four, six); got != want {
			t.Errorf("%q: %q, want %q", unit, got, want)
		}
	}
}

func accepts(all []endpoint, known bool) func(four, six netip.AddrPort) string {
	return func(four, six netip.AddrPort) string {
		got := ""
		if !known {
			return "?"
		}
		if takes(all, four) {
			got += "4"
		}
		if takes(all, six) {
			got += "6"
		}
		return got
	}
}

// TestAuthorizedKeysAreReadWithTheirOptions locks which keys count.
func TestAuthorizedKeysAreReadWithTheirOptions(t *testing.T) {
	text := "# " + otherKey + "\n\n" + machinetest.AliceKey + "\nfrom=\"10.0.0.0/8,!10.1.0.0/16\",environment=\"A=, command=x\" " + otherKey + "\n" +
		"command=\"echo \\\"ssh-rsa AAAA\\\"\",no-pty " + machinetest.AliceKey + "\nssh-ed25519 notbase64!\nnonsense\n"
	keys, complete := parseAuthorizedKeys(text)
	if len(keys) != 2 || keys[0].Comment != "alice@laptop" || keys[1].Comment != "alice@desk" || !complete {
		t.Errorf("%+v, %v", keys, complete)
	}
	if _, complete := parseAuthorizedKeys("cert-authority,principals=\"alice\" " + machinetest.AliceKey); complete {
		t.Error("certificates are not seen")
	}
	if k, _ := machine.ParseKey("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github"); k.Fingerprint != "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU" {
		t.Errorf("the fingerprint is %s", k.Fingerprint)
	}
}

// TestPatternsMatchLikeSSHD locks the wildcards.
func TestPatternsMatchLikeSSHD(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"alice", "alice", true}, {"alice", "alic", false}, {"a*e", "alice", true}, {"*", "", true}, {"", "", true}, {"", "a", false},
		{"a?ice", "alice", true}, {"*li*", "alice", true}, {"*x*", "alice", false}, {"**", "a", true}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyy", false},
	} {
		if got := matchPattern(c.pattern, c.s); got != c.want {
			t.Errorf("%q %q: %v", c.pattern, c.s, got)
		}
	}
}

// TestAddressesAreFoundInScripts locks the forms that NixOS has had.
func TestAddressesAreFoundInScripts(t *testing.T) {
	script := "echo \"checking ip 10.9.9.9/8...\"\nif out=$(ip addr add \"192.0.2.7/24\" dev \"eth0\" 2>&1); then\n" +
		"if out=$(ip addr replace \"2001:db8::7/64\" dev \"eth0\" nodad 2>&1); then\n/nix/store/x/bin/ip -4 address add 10.0.0.1/8 dev eth0\n" +
		"ip addr del \"10.8.8.8/8\" dev eth0\nip route add \"10.7.7.7/8\" via 10.0.0.2\n"
	var got []string
	for _, p := range addedPrefixes(script) {
		got = append(got, p.String())
	}
	if want := []string{"192.0.2.7/24", "2001:db8::7/64", "10.0.0.1/8"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	static, dynamic := parseNetworkFile("# x\n[Match]\nName=eth0 en*\n[Network]\nDHCP=ipv4\nAddress=192.0.2.7/24\n[Route]\nAddress=10.0.0.1/8\n[Address]\nAddress = 2001:db8::7/64\n")
	if len(static) != 4 || !dynamic || !static[0].on("eth0") || !static[2].on("enp1s0") || static[0].on("wlan0") {
		t.Errorf("%+v, %v", static, dynamic)
	}
}

// TestGroupsAfterFollowNixOSsRules locks who stays in which group, with mutable users and without.
func TestGroupsAfterFollowNixOSsRules(t *testing.T) {
	for name, c := range map[string]struct {
		user    string
		mutable bool
		members []string
		kind    string
		want    string
	}{
		"declared":             {"alice", true, []string{"alice"}, "perl", "users wheel"},
		"declared no more":     {"alice", true, nil, "perl", "users"},
		"by hand":              {"bob", true, nil, "perl", "ops users wheel"},
		"by hand, not mutable": {"bob", false, nil, "perl", "users"},
		"by hand, userborn":    {"bob", true, nil, "userborn", "ops users"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newLoginMachine(t)
			m.Write("/etc/group", "root:x:0:\nwheel:x:1:alice,bob\nusers:x:100:\nops:x:500:bob\n")
			m.Write("/etc/passwd", m.Read("/etc/passwd")+"bob:x:1001:100::/home/bob:/bin/sh\n")
			before, after := plain("20.09"), plain("20.09")
			before.accounts, after.accounts, after.mutable, after.wheel = c.kind, c.kind, c.mutable, c.members
			before.build(m, string(oldSystem))
			after.build(m, string(newSystem))
			i := newInspection(m.Root, nil, machine.Login{User: c.user}, string(oldSystem), string(newSystem))
			i.before, i.after, i.machine = i.old.accounts(), i.new.accounts(), i.readMachine()
			groups, known := i.groupsAfter()
			slices.Sort(groups)
			if got := strings.Join(slices.Compact(groups), " "); got != c.want || !known {
				t.Errorf("%q, %v, want %q", got, known, c.want)
			}
		})
	}
}

func FuzzSudoers(f *testing.F) {
	f.Add(plain("17.09").sudoers)
	f.Add("User_Alias A = B : B = A\nA, !%wheel ALL=(ALL : ALL) NOPASSWD: ALL, !/bin/sh\\\n : x = y\n#include x\n@includedir y")
	f.Fuzz(func(t *testing.T, text string) {
		sudoers{lines: sudoersLines(text)}.give(asker{user: "alice", uid: 1000, groups: []string{"wheel"}, groupsKnown: true})
		giveDoas(text, asker{user: "alice"})
	})
}

func FuzzSSHDConfig(f *testing.F) {
	f.Add(plain("17.09").config)
	f.Add("Match all\nListenAddress [::]:22\nPort=\"\"\nAllowUsers *@10.0.0.0/8\nAuthorizedKeysFile %h/%\nInclude")
	f.Fuzz(func(t *testing.T, text string) {
		s := sshdSettings{values: map[string][]string{}, unsure: map[string]bool{}}
		v := etcView{files: machine.NewFiles(machine.Root{Dir: "/nonexistent"}), toplevel: string(newSystem)}
		v.parseSSHD(&s, text, false, 0)
		s.endpoints()
		s.admits(machine.Login{User: "alice"}, []string{"wheel"}, true)
		v.userKeys(machine.Login{User: "alice", Home: "/home/alice"}, s)
		parseSSHDDump(text)
		parseSocket(text)
	})
}

func FuzzAuthorizedKeys(f *testing.F) {
	f.Add(machinetest.AliceKey)
	f.Add("command=\"a\\\"b\",cert-authority " + otherKey)
	f.Add("a=\"\\")
	f.Fuzz(func(t *testing.T, text string) { parseAuthorizedKeys(text) })
}

func FuzzAccounts(f *testing.F) {
	f.Add(`{"mutableUsers":true,"users":[{"name":"alice","shell":null}],"groups":[]}`)
	f.Fuzz(func(t *testing.T, text string) { parseAccounts(text).user("alice") })
}

func FuzzNetwork(f *testing.F) {
	f.Add("ip addr add \"192.0.2.7/24\" dev eth0")
	f.Add("[Match]\nName=e[\n[Network]\nAddress=1.2.3.4/5\nDHCP=yes")
	f.Fuzz(func(t *testing.T, text string) {
		addedPrefixes(text)
		static, _ := parseNetworkFile(text)
		configuredAddresses{static: static}.of("eth0")
	})
}

func FuzzFirewall(f *testing.F) {
	f.Add(firewallStart("ip46tables -A nixos-fw -p tcp --dport 20: -j nixos-fw-accept -i"))
	f.Add(nftRules("iifname { tcp dport { 22, -} accept"))
	f.Fuzz(func(t *testing.T, text string) {
		iptablesAccepts(text, 22, "eth0")
		nftAccepts(text, 22, "eth0")
	})
}
