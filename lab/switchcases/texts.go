package switchcases

const (
	restarted = "start a.service, stop a.service"
	reloaded  = "reload a.service"
	skipped   = "skip a.service"
)

// text is a case of one unit that is active, and of its text alone.
func text(name, unit, before, after string, does map[string]string) Case {
	c := Case{Name: name, Runs: unit, Old: Files{unit: before}, New: Files{}, Does: does}
	if after != "" {
		c.New[unit] = after
	}
	return c
}

// service is a case of a service's text.
func service(name, before, after string, does map[string]string) Case {
	return text(name, "a.service", before, after, does)
}

// trouble is a case of which a person has to be told something, whatever the program.
func (c Case) trouble(text string, programs ...string) Case {
	c.Trouble = map[string]string{}
	for _, program := range programs {
		c.Trouble[program] = text
	}
	return c
}

const cannotReload = "which it cannot do"

// Texts are the cases of one unit's text.
func Texts() []Case {
	const reload = "ExecReload=r\n"
	return []Case{
		service("1 ExecStart", "[Service]\nExecStart=/a\n", "[Service]\nExecStart=/b\n", all(restarted)),
		{Name: "1b while it is activating", Runs: "a.service=activating", Old: Files{"a.service": "[Service]\nExecStart=/a\n"},
			New: Files{"a.service": "[Service]\nExecStart=/b\n"}, Does: all(restarted)},
		service("1c Environment", "[Service]\nEnvironment=A=1\n", "[Service]\nEnvironment=A=2\n", all(restarted)),
		service("1d After", "[Unit]\nAfter=b.service\n", "[Unit]\nAfter=c.service\n", all(restarted)),
		service("1e restart trigger", "[Unit]\nX-Restart-Triggers=1\n", "[Unit]\nX-Restart-Triggers=2\n", all(restarted)),
		{Name: "2 while it has failed", Runs: "a.service=failed", Old: Files{"a.service": "[Service]\nExecStart=/a\n"},
			New: Files{"a.service": "[Service]\nExecStart=/b\n"}, Does: all("")},
		{Name: "2b while it is reloading", Runs: "a.service=reloading", Old: Files{"a.service": "[Service]\nExecStart=/a\n"},
			New: Files{"a.service": "[Service]\nExecStart=/b\n"}, Does: all("")},
		{Name: "2c while it is deactivating", Runs: "a.service=deactivating", Old: Files{"a.service": "[Service]\nExecStart=/a\n"},
			New: Files{"a.service": "[Service]\nExecStart=/b\n"}, Does: all("")},
		{Name: "2d while it is inactive", Old: Files{"a.service": "[Service]\nExecStart=/a\n"},
			New: Files{"a.service": "[Service]\nExecStart=/b\n"}, Does: all("")},
		service("3 what does not matter", "[Unit]\nDescription=a\nOnFailure=x\n", "[Unit]\nDescription=b\nDocumentation=c\nRefuseManualStop=no\n",
			each("", "", restarted)),
		service("4 [Install]", "[Install]\nWantedBy=a\n", "[Install]\nWantedBy=b\n", each("", "", restarted)),
		service("5 X-ReloadIfChanged", "[Service]\n"+reload+"A=1\nX-ReloadIfChanged=true\n", "[Service]\n"+reload+"A=2\nX-ReloadIfChanged=true\n", all(reloaded)),
		service("5b X-ReloadIfChanged=True", "[Service]\nA=1\nX-ReloadIfChanged=True\n", "[Service]\nA=2\nX-ReloadIfChanged=True\n", all(restarted)),
		service("5c X-ReloadIfChanged=1", "[Service]\n"+reload+"A=1\nX-ReloadIfChanged=1\n", "[Service]\n"+reload+"A=2\nX-ReloadIfChanged=1\n",
			each(reloaded, reloaded, restarted)),
		service("6 X-RestartIfChanged=false", "[Service]\nA=1\n", "[Service]\nA=2\nX-RestartIfChanged=false\n", all(skipped)),
		service("6b X-RestartIfChanged=False", "[Service]\nA=1\n", "[Service]\nA=2\nX-RestartIfChanged=False\n", all(skipped)),
		service("6c RefuseManualStop", "[Service]\nA=1\n", "[Unit]\nRefuseManualStop=yes\n[Service]\nA=2\n", all(skipped)),
		service("6d X-OnlyManualStart", "[Service]\nA=1\n", "[Unit]\nX-OnlyManualStart=1\n[Service]\nA=2\n", each(skipped, skipped, restarted)),
		service("6e X-RestartIfChanged=false added alone", "[Service]\nA=1\n", "[Service]\nA=1\nX-RestartIfChanged=false\n", all(skipped)),
		service("8 reload trigger", "[Unit]\nX-Reload-Triggers=1\n[Service]\n"+reload, "[Unit]\nX-Reload-Triggers=2\n[Service]\n"+reload,
			each(reloaded, reloaded, restarted)),
		service("8b reload trigger added", "[Service]\n"+reload, "[Unit]\nX-Reload-Triggers=1\n[Service]\n"+reload, each(reloaded, reloaded, restarted)),
		service("8c reload trigger and X-RestartIfChanged=false", "[Unit]\nX-Reload-Triggers=1\n[Service]\n"+reload+"X-RestartIfChanged=false\n",
			"[Unit]\nX-Reload-Triggers=2\n[Service]\n"+reload+"X-RestartIfChanged=false\n", each(reloaded, reloaded, skipped)),
		service("9 reload trigger dropped", "[Unit]\nX-Reload-Triggers=1\n", "[Service]\n", each("", "", restarted)),
		service("10 reload trigger, no ExecReload", "[Unit]\nX-Reload-Triggers=1\n", "[Unit]\nX-Reload-Triggers=2\n", each(reloaded, reloaded, restarted)).
			trouble(cannotReload, Today, Autumn2024),
		text("10b reload trigger of a path", "a.path", "[Unit]\nX-Reload-Triggers=1\n", "[Unit]\nX-Reload-Triggers=2\n",
			each("reload a.path", "reload a.path", "")).trouble(cannotReload, Today, Autumn2024),
		service("11 ExecReload", "[Service]\nExecReload=a\n", "[Service]\nExecReload=b\n", each(reloaded, restarted, restarted)),
		service("11b ExecReload added", "[Service]\nA=1\n", "[Service]\nA=1\nExecReload=b\n", each(reloaded, restarted, restarted)),
		service("12 ExecReload dropped", "[Service]\nA=1\nExecReload=a\n", "[Service]\nA=1\n", each("", restarted, restarted)),
		service("12b ExecReload dropped with its section", "[Service]\nExecReload=a\n", "[Unit]\n", each("", restarted, restarted)),
		service("13 ExecReload and another added", "[Service]\n", "[Service]\nA=1\nExecReload=b\n", all(restarted)),
		service("13b ExecReload and another", "[Service]\nA=1\nExecReload=a\n", "[Service]\nA=2\nExecReload=b\n", all(restarted)),
		service("14 comment at the end of a line", "[Service]\nE=A=1 ; one\n", "[Service]\nE=A=1 ; two\n", each("", restarted, restarted)),
		service("14b comment added there", "[Service]\nE=A=1\n", "[Service]\nE=A=1\t# two\n", each("", restarted, restarted)),
		service("14c what looks like one, in a command", "[Service]\nExecStart=sh -c 'a ; b'\n", "[Service]\nExecStart=sh -c 'a ; c'\n",
			each("", restarted, restarted)),
		service("15 no blank before it", "[Service]\nE=A=1;one\n", "[Service]\nE=A=1;two\n", all(restarted)),
		service("16 a key that is reset", "[Service]\nE=x\n", "[Service]\nE=\nE=x\n", each("", "", restarted)),
		service("17 an empty key", "[Service]\nA=1\n", "[Service]\nA=1\nE=\n", all(restarted)),
		service("17b a key that is emptied", "[Service]\nE=x\n", "[Service]\nE=\n", all(restarted)),
		service("17c the same value twice", "[Service]\nE=x\n", "[Service]\nE=x\nE=x\n", all(restarted)),
		service("19 quotes around a value", "[Service]\nE=\"A=1\"\n", "[Service]\nE=A=1\n", each("", "", restarted)),
		service("19b comments, empty lines, order", "[Service]\nA=1\nB=2\n", "# x\n[Service]\n\nB=2\n; y\nA=1\n", each("", "", restarted)),
		service("19c blanks and colons", "[Service]\nA=1\n", "[Service]\n  A : 1\n", each("", "", restarted)),
		service("20 an open quote", "[Service]\nA=\"1\n", "[Service]\nA=1\n", each("status 1", "status 1", restarted)),
		service("20b a line without a sign at the end", "[Service]\nA=1\n", "[Service]\nA=1\nword\n", each("status 1", "status 1", restarted)),
		service("20c a line without a sign", "[Service]\nA\nB=1\n", "[Service]\nA\nB=2\n", all(restarted)),
		service("20d an indented comment without a sign", "[Service]\nB=1\n", "[Service]\nB=1\n  # x\n", each("status 1", "status 1", restarted)),
		service("20e an indented comment before a key", "[Service]\nA=1\n", "[Service]\nA=1\n  # x\nB=1\n", each(restarted, "status 1", restarted)),
		service("20f joined lines", "[Service]\nA=1 \\\n2\n", "[Service]\nA=1 2\n", each("", "status 1", restarted)),
		service("20g not UTF-8", "[Service]\nA=1\n", "[Service]\nA=\xff\n", each("status 1", "status 1", restarted)),
		text("21 path", "a.path", "[Path]\nA=1\n", "[Path]\nA=2\n", each("", "restart a.path", "")),
		text("22 slice", "a.slice", "[Slice]\nA=1\n", "[Slice]\nA=2\n", all("")),
		text("22b socket", "a.socket", "[Socket]\nA=1\n", "[Socket]\nA=2\n", all("")),
		text("23 timer", "a.timer", "[Timer]\nA=1\n", "[Timer]\nA=2\n", each("restart a.timer", "restart a.timer", "start a.timer, stop a.timer")),
		text("23b automount", "a.automount", "[Automount]\nA=1\n", "[Automount]\nA=2\n",
			each("restart a.automount", "restart a.automount", "start a.automount, stop a.automount")),
		text("23c swap", "a.swap", "[Swap]\nA=1\n", "[Swap]\nA=2\n", each("restart a.swap", "restart a.swap", "start a.swap, stop a.swap")),
		text("24 mount", "a.mount", "[Mount]\nWhat=1\n", "[Mount]\nWhat=2\n", each("restart a.mount", "restart a.mount", "reload a.mount")),
		text("24b nix.mount", "nix.mount", "[Mount]\nWhat=1\n", "[Mount]\nWhat=2\n", all("reload nix.mount")),
		text("24c -.mount", "-.mount", "[Mount]\nWhat=1\n", "[Mount]\nWhat=2\n", all("reload -.mount")),
		text("24d options of a mount", "a.mount", "[Mount]\nOptions=1\n", "[Mount]\nOptions=2\n", all("reload a.mount")),
		text("24e options of a mount added", "a.mount", "[Mount]\nWhat=1\n", "[Mount]\nWhat=1\nOptions=2\n",
			each("restart a.mount", "restart a.mount", "reload a.mount")),
		text("37 gone", "a.service", "[Service]\n", "", all("stop a.service")),
		text("37b target gone", "a.target", "[Unit]\n", "", all("stop a.target")),
		text("37c socket gone", "a.socket", "[Socket]\n", "", all("stop a.socket")),
		text("37d slice gone", "a.slice", "[Slice]\n", "", all("stop a.slice")),
		text("37e masked", "a.service", "[Service]\n", "-> /dev/null", all("stop a.service")),
		text("37f dangling", "a.service", "[Service]\n", "-> /nowhere/a.service", all("stop a.service")),
		text("38 gone, X-StopOnRemoval=false", "a.service", "[Unit]\nX-StopOnRemoval=false\n", "", all("")),
		text("42 target", "a.target", "[Unit]\n", "[Unit]\nA=1\n", all("start a.target")),
		text("42b target, X-StopOnReconfiguration", "a.target", "[Unit]\n", "[Unit]\nX-StopOnReconfiguration=true\n", all("start a.target, stop a.target")),
		text("42c target, also RefuseManualStart", "a.target", "[Unit]\n", "[Unit]\nX-StopOnReconfiguration=true\nRefuseManualStart=yes\n",
			all("stop a.target")),
		text("42d target, X-OnlyManualStart", "a.target", "[Unit]\n", "[Unit]\nX-OnlyManualStart=true\n", each("", "", "start a.target")),
		text("42e suspend.target", "suspend.target", "[Unit]\n", "[Unit]\nA=1\n", all("")),
	}
}
