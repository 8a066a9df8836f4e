package switchcases

const (
	one   = "[Service]\nA=1\n"
	two   = "[Service]\nA=2\n"
	socks = "[Socket]\nListenStream=1\n"

	withSocket = "start a.socket, stop a.service, stop a.socket"
	active     = "[Unit]\nA=1\n"
)

// Systems are the cases of more than one file.
func Systems() []Case {
	cases := append(sockets(), templates()...)
	cases = append(cases, targets()...)
	return append(cases, others()...)
}

func sockets() []Case {
	return []Case{
		{Name: "7 X-StopIfChanged=false, its socket active", Runs: "a.service a.socket", Old: Files{"a.service": one, "a.socket": socks},
			New: Files{"a.service": two + "X-StopIfChanged=false\n", "a.socket": socks}, Does: all("restart a.service")},
		{Name: "25 service and its active socket", Runs: "a.service a.socket", Old: Files{"a.service": one, "a.socket": socks},
			New: Files{"a.service": two, "a.socket": socks}, Does: all(withSocket)},
		{Name: "25b its socket failed", Runs: "a.service a.socket=failed", Old: Files{"a.service": one, "a.socket": socks},
			New: Files{"a.service": two, "a.socket": socks}, Does: all(withSocket)},
		{Name: "25c and the service is wanted", Runs: "a.service a.socket multi-user.target",
			Old:  Files{"a.service": one, "a.socket": socks, "multi-user.target": active, "multi-user.target.wants/a.service": "-> ../a.service"},
			New:  Files{"a.service": two, "a.socket": socks, "multi-user.target": active, "multi-user.target.wants/a.service": "-> ../a.service"},
			Does: all("start a.socket, start multi-user.target, stop a.service, stop a.socket"), Systemd: "start a.service"},
		{Name: "26 its socket is there and inactive", Runs: "a.service", Old: Files{"a.service": one, "a.socket": socks},
			New: Files{"a.service": two, "a.socket": socks}, Does: each("stop a.service", restarted, restarted),
			Trouble: map[string]string{Today: "a.service is stopped and left to a.socket, which nothing starts"}},
		{Name: "26b its socket is masked", Runs: "a.service", Old: Files{"a.service": one},
			New: Files{"a.service": two, "a.socket": "-> /dev/null"}, Does: each("stop a.service", restarted, restarted),
			Trouble: map[string]string{Today: "which nothing starts"}},
		{Name: "27 becomes socket-activated", Runs: "a.service sockets.target", Old: Files{"a.service": one, "sockets.target": active},
			New:     Files{"a.service": two, "a.socket": socks, "sockets.target": active, "sockets.target.wants/a.socket": "-> ../a.socket"},
			Does:    each("start sockets.target, stop a.service", "start a.service, start sockets.target, stop a.service", "start a.service, start sockets.target, stop a.service"),
			Systemd: "start a.socket"},
		{Name: "28 its socket is gone", Runs: "a.service a.socket", Old: Files{"a.service": one, "a.socket": socks}, New: Files{"a.service": two},
			Does: each("start a.service, stop a.service, stop a.socket", "start a.service, stop a.service, stop a.socket", withSocket)},
		{Name: "29 X-NotSocketActivated", Runs: "a.service a.socket", Old: Files{"a.service": one, "a.socket": socks},
			New: Files{"a.service": two + "X-NotSocketActivated=true\n", "a.socket": socks}, Does: each("start a.service, "+withSocket, withSocket, withSocket)},
		{Name: "30 several sockets", Runs: "a.service q1.socket", Old: Files{"a.service": one, "q1.socket": socks, "q2.socket": socks},
			New:  Files{"a.service": two + "Sockets=q1.socket q2.socket\n", "q1.socket": socks, "q2.socket": socks},
			Does: all("start q1.socket, stop a.service, stop q1.socket")},
	}
}

func templates() []Case {
	const again = "start a@x.service, stop a@x.service"
	return []Case{
		{Name: "31 template", Runs: "a@x.service", Old: Files{"a@.service": one}, New: Files{"a@.service": two}, Does: all(again)},
		{Name: "32 template and its active socket", Runs: "a@x.service a.socket", Old: Files{"a@.service": one, "a.socket": socks},
			New: Files{"a@.service": two, "a.socket": socks}, Does: each("start a.socket, stop a.socket, stop a@x.service", again, again)},
		{Name: "33 template gone", Runs: "a@x.service", Old: Files{"a@.service": one}, New: Files{}, Does: all("stop a@x.service")},
		{Name: "34 drop-in of an instance gone", Runs: "a@x.service a@y.service", Old: Files{"a@.service": one, "a@x.service.d/o.conf": two},
			New: Files{"a@.service": one}, Does: each("stop a@x.service", again, "")},
		{Name: "34b drop-in of an instance masked", Runs: "a@x.service", Old: Files{"a@.service": one, "a@x.service.d/o.conf": two},
			New: Files{"a@.service": one, "a@x.service.d/o.conf": "-> /dev/null"}, Does: each("stop a@x.service", again, "")},
		{Name: "35 drop-in of an instance", Runs: "a@x.service", Old: Files{"a@.service": one, "a@x.service.d/o.conf": two},
			New: Files{"a@.service": one, "a@x.service.d/o.conf": one}, Does: each(again, again, "")},
		{Name: "36 a dot in the instance", Runs: "a@x.y.service", Old: Files{"a@.service": one}, New: Files{"a@.service": two}, Does: all("")},
		{Name: "36b an own file is new", Runs: "a@x.service", Old: Files{"a@.service": one}, New: Files{"a@.service": two, "a@x.service": two},
			Does: each("", "", again)},
		{Name: "36c an own file is gone", Runs: "a@x.service", Old: Files{"a@.service": one, "a@x.service": one}, New: Files{"a@.service": one},
			Does: each("stop a@x.service", "stop a@x.service", "")},
		{Name: "18 a value moved to a drop-in", Runs: "a.service", Old: Files{"a.service": "[Service]\nE=1\nE=2\n"},
			New: Files{"a.service": "[Service]\nE=1\n", "a.service.d/x.conf": "[Service]\nE=2\n"}, Does: all(restarted)},
		{Name: "16b reset in a drop-in", Runs: "a.service", Old: Files{"a.service": "[Service]\nE=x\n"},
			New: Files{"a.service": "[Service]\nE=x\n", "a.service.d/x.conf": "[Service]\nE=\nE=x\n"}, Does: all("")},
		{Name: "1f a drop-in", Runs: "a.service", Old: Files{"a.service": one},
			New: Files{"a.service": one, "a.service.d/overrides.conf": "[Service]\nNice=1\n"}, Does: all(restarted)},
		{Name: "1g a drop-in of another name", Runs: "a.service", Old: Files{"a.service": one},
			New: Files{"a.service": one, "a.service.d/x.conf": "[Service]\nNice=1\n"}, Does: each(restarted, restarted, "")},
		{Name: "1h a drop-in for all services", Runs: "a.service", Old: Files{"a.service": one},
			New: Files{"a.service": one, "service.d/x.conf": "[Service]\nNice=1\n"}, Does: all("")},
	}
}

func targets() []Case {
	const refuses = "[Unit]\nRefuseManualStart=yes\n"
	const moment = "[Service]\nType=oneshot\nExecStart=/a\n"
	return []Case{
		{Name: "4b only wanted by another", Runs: "a.service multi-user.target timers.target",
			Old: Files{"a.service": one, "multi-user.target": active, "timers.target": active, "multi-user.target.wants/a.service": "-> ../a.service"},
			New: Files{"a.service": one, "multi-user.target": active, "timers.target": active, "timers.target.wants/a.service": "-> ../a.service"},
			// Both targets are started, and what they want runs.
			Does: all("start multi-user.target, start timers.target")},
		{Name: "39 new, wanted by an active target", Runs: "multi-user.target", Old: Files{"multi-user.target": active},
			New:  Files{"multi-user.target": active, "b.service": one, "multi-user.target.wants/b.service": "-> ../b.service"},
			Does: all("start multi-user.target"), Systemd: "start b.service"},
		{Name: "39b new, wanted by what is wanted", Runs: "multi-user.target", Old: Files{"multi-user.target": active},
			New: Files{"multi-user.target": active + "Wants=x.target\n", "x.target": active, "b.service": one,
				"x.target.requires/b.service": "-> ../b.service"},
			Does: all("start multi-user.target"), Systemd: "start b.service, start x.target"},
		{Name: "39c new, wanted by a target that does not run", Runs: "multi-user.target", Old: Files{"multi-user.target": active, "rescue.target": active},
			New:  Files{"multi-user.target": active, "rescue.target": active, "b.service": one, "rescue.target.wants/b.service": "-> ../b.service"},
			Does: all("start multi-user.target")},
		{Name: "40 new, wanted by a target that refuses to be started", Runs: "multi-user.target network.target",
			Old:  Files{"multi-user.target": active, "network.target": refuses},
			New:  Files{"multi-user.target": active, "network.target": refuses, "b.service": one, "network.target.wants/b.service": "-> ../b.service"},
			Does: all("start multi-user.target")},
		{Name: "40d the same, which something wants that runs", Runs: "multi-user.target network.target a.service",
			Old: Files{"multi-user.target": active, "network.target": refuses, "a.service": one + "[Unit]\nWants=network.target\n",
				"multi-user.target.wants/a.service": "-> ../a.service"},
			New: Files{"multi-user.target": active, "network.target": refuses, "a.service": one + "[Unit]\nWants=network.target\n",
				"multi-user.target.wants/a.service": "-> ../a.service", "b.service": one, "network.target.wants/b.service": "-> ../b.service"},
			Does: all("start multi-user.target")},
		{Name: "40e the same, which something wants that is started", Runs: "multi-user.target",
			Old: Files{"multi-user.target": active, "network.target": refuses},
			New: Files{"multi-user.target": active, "network.target": refuses, "a.service": one + "[Unit]\nWants=network.target\n",
				"multi-user.target.wants/a.service": "-> ../a.service", "b.service": one, "network.target.wants/b.service": "-> ../b.service"},
			Does: all("start multi-user.target"), Systemd: "start a.service, start b.service, start network.target"},
		{Name: "40b new, wanted by nothing", Runs: "multi-user.target", Old: Files{"multi-user.target": active},
			New: Files{"multi-user.target": active, "b.service": one}, Does: all("start multi-user.target")},
		{Name: "40c a new drop-in whose file lies elsewhere", Runs: "a.service", From: map[string]string{"a.service": "/usr/lib/systemd/system"},
			Old: Files{}, New: Files{"a.service.d/x.conf": two}, Does: all("")},
		{Name: "41 runs for a moment", Runs: "multi-user.target",
			Old:  Files{"multi-user.target": active, "b.service": moment, "multi-user.target.wants/b.service": "-> ../b.service"},
			New:  Files{"multi-user.target": active, "b.service": moment, "multi-user.target.wants/b.service": "-> ../b.service"},
			Does: all("start multi-user.target"), Systemd: "again b.service"},
		{Name: "2e failed and wanted", Runs: "multi-user.target a.service=failed",
			Old:  Files{"multi-user.target": active, "a.service": one, "multi-user.target.wants/a.service": "-> ../a.service"},
			New:  Files{"multi-user.target": active, "a.service": two, "multi-user.target.wants/a.service": "-> ../a.service"},
			Does: all("start multi-user.target"), Systemd: "start a.service"},
		{Name: "43 loaded from elsewhere", Runs: "a.service", From: map[string]string{"a.service": "/run/systemd/generator.early"},
			Old: Files{"a.service": one}, New: Files{"a.service": two}, Does: each("", restarted, restarted)},
		{Name: "43b loaded from systemd's own controls", Runs: "a.service", From: map[string]string{"a.service": "/etc/systemd/system.control"},
			Old: Files{"a.service": one}, New: Files{"a.service": two}, Does: all(restarted)},
		{Name: "49 a list names a unit that is gone", Left: "start b.service", Old: Files{}, New: Files{}, Does: all("start b.service"),
			Trouble: map[string]string{Today: "b.service", Autumn2024: "b.service", Perl: "b.service"}},
		{Name: "50 a list names a changed unit", Runs: "a.service", Left: "restart a.service",
			Old:  Files{"a.service": one + "ExecReload=r\nX-ReloadIfChanged=true\n"},
			New:  Files{"a.service": two + "ExecReload=r\nX-ReloadIfChanged=true\n"},
			Does: each("restart a.service, "+restarted, "restart a.service, "+restarted, "reload a.service, restart a.service")},
	}
}

func others() []Case {
	const home, users = "systemd/user/a.service", "systemd/user/"
	return []Case{
		{Name: "44 fstab: other device", Old: Files{"fstab": "/dev/a /b ext4\n"}, New: Files{"fstab": "/dev/c /b ext4\n"},
			Does: each("restart b.mount", "restart b.mount", "start b.mount, stop b.mount")},
		{Name: "44b fstab: other options", Old: Files{"fstab": "/dev/a /d/e-f ext4 ro\n"}, New: Files{"fstab": "/dev/a /d/e-f ext4 rw 0 2\n"},
			Runs: `d-e\x2df.mount`, Does: all(`reload d-e\x2df.mount`)},
		{Name: "44c fstab: the root's type", Old: Files{"fstab": "/dev/a / ext4 ro\n"}, New: Files{"fstab": "/dev/a / xfs ro\n"},
			Does: each("skip -.mount", "skip -.mount", "start -.mount, stop -.mount")},
		{Name: "44d fstab: device and options of /nix", Old: Files{"fstab": "/dev/a /nix ext4 ro\n"}, New: Files{"fstab": "/dev/b /nix ext4 rw\n"},
			Does: each("reload nix.mount", "reload nix.mount", "start nix.mount, stop nix.mount")},
		{Name: "45 fstab: gone", Old: Files{"fstab": "/dev/a /f ext4\n"}, New: Files{"fstab": ""}, Does: all("stop f.mount")},
		{Name: "45b fstab: automount gone", Old: Files{"fstab": "/dev/a /e ext4 noauto,x-systemd.automount\n"}, New: Files{"fstab": ""},
			Does: each("stop e.automount", "stop e.mount", "stop e.mount")},
		{Name: "45c fstab: new, pass, comments", Old: Files{"fstab": "/dev/a /f ext4 ro 0 1\n# /dev/b /g ext4\n/dev/c /h ext4 ro\n"},
			New: Files{"fstab": "/dev/a /f ext4 ro 0 2\n# /dev/x /g ext4\n/dev/c /h ext4 ro\n/dev/d /i ext4\n"}, Does: all("")},
		{Name: "45d fstab: a sign in a line", Old: Files{"fstab": "/dev/a /f ext4 x=#1\n"}, New: Files{"fstab": "/dev/b /f ext4 x=#1\n"},
			Does: each("", "", "start f.mount, stop f.mount")},
		{Name: "46 fstab: options of what is not mounted", Old: Files{"fstab": "/dev/a /f ext4 noauto,ro\n"},
			New: Files{"fstab": "/dev/a /f ext4 noauto,rw\n"}, Does: all("reload f.mount"),
			Trouble: map[string]string{Today: "ends there with status 1", Autumn2024: "ends there with status 1"}},
		{Name: "47 swap gone", Old: Files{"fstab": "/dev/s none swap sw\n/dev/t none swap\n"}, New: Files{"fstab": "/dev/t none swap pri=1\n"},
			Does: all("swapoff /dev/s")},
		{Name: "48 system.conf", Old: Files{"systemd/system.conf": "[Manager]\n"}, New: Files{"systemd/system.conf": "[Manager]\nA=1\n"},
			Does: each("reexec systemd", "reexec systemd", "")},
		{Name: "52 user unit", Old: Files{home: one}, New: Files{home: two}, Does: each("user start a.service, user stop a.service", "", "")},
		{Name: "52b user unit gone", Old: Files{home: one, users + "b.service": one}, New: Files{users + "b.service": one}, Does: each("user stop a.service", "", "")},
		{Name: "52c user unit, X-RestartIfChanged=false", Old: Files{home: one}, New: Files{home: two + "X-RestartIfChanged=false\n"},
			Does: each("user skip a.service", "", "")},
		{Name: "52d user unit, ExecReload", Old: Files{home: one}, New: Files{home: one + "ExecReload=r\n"}, Does: each("user reload a.service", "", "")},
		{Name: "52e user unit, what does not matter", Old: Files{home: one}, New: Files{home: one + "[Unit]\nDescription=x\n"}, Does: all("")},
	}
}

// All are all cases.
func All() []Case { return append(Texts(), Systems()...) }
