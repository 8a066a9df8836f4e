package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Password is the password of every user of a target who has one. It is awkward on purpose: a shell that got to see it
// unquoted would change it.
const Password = "correct horse 'battery' $taple"

// PasswordHash is Password as crypt(3) keeps it.
const PasswordHash = "$6$ferrylab$P6o71tw63n/C0pXnfUn5z.T.u3trTPxwRxtua3BXnXKF9qIBaAFvMwHcFIAlkg/9yyTKDcR81Sz413ZblLsab."

// firstUID is alice's, and the others follow in their order.
const firstUID = 1000

// user is a login on a target. Everyone's authorized_keys has the lab's key, and everyone has Password.
type user struct {
	name  string
	shell string
	sudo  bool // in group sudo, which may run everything, with a password
}

// targetUsers are the people on every target, root aside, who can log in with the lab's key.
func targetUsers() []user {
	return []user{
		{name: "alice", shell: "/bin/bash", sudo: true},
		{name: "bob", shell: "/bin/bash"},              // sudo without a password
		{name: "carol", shell: "/bin/bash"},            // not in sudoers
		{name: "dora", shell: "/bin/bash"},             // doas without a password
		{name: "dave", shell: "/bin/bash"},             // doas with a password
		{name: "rita", shell: "/bin/bash", sudo: true}, // sudo only on a terminal
		{name: "zoe", shell: "/bin/zsh", sudo: true},
		{name: "finn", shell: "/usr/bin/fish", sudo: true},
	}
}

// sudoers is what Debian's own file says and a NixOS system's does not, and what is the lab's.
const sudoers = `Defaults env_reset, use_pty, secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Defaults logfile=` + sudoLog + `, loglinelen=0
%sudo ALL=(ALL:ALL) ALL
Defaults:rita requiretty
bob ALL=(ALL:ALL) NOPASSWD: ALL
`

const doasConf = `permit nopass dora
permit dave
`

// addUsers writes the users into the root of a machine that is off, and lets the key log in as each and as root.
func addUsers(root string, users []user, authorized string) error {
	var passwd, shadow, group, inSudo strings.Builder
	home := func(path string, uid int) error {
		ssh := filepath.Join(root, path, ".ssh")
		keys := filepath.Join(ssh, "authorized_keys")
		if err := os.MkdirAll(ssh, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(keys, []byte(authorized), 0o600); err != nil {
			return err
		}
		for _, path := range []string{filepath.Join(root, path), ssh, keys} {
			if err := os.Chown(path, uid, uid); err != nil {
				return err
			}
		}
		return nil
	}
	if err := home("root", 0); err != nil {
		return err
	}
	for i, u := range users {
		uid := firstUID + i
		fmt.Fprintf(&passwd, "%s:x:%d:%d::/home/%s:%s\n", u.name, uid, uid, u.name, u.shell)
		fmt.Fprintf(&shadow, "%s:%s:20000:0:99999:7:::\n", u.name, PasswordHash)
		fmt.Fprintf(&group, "%s:x:%d:\n", u.name, uid)
		if u.sudo {
			inSudo.WriteString("," + u.name)
		}
		if err := home("home/"+u.name, uid); err != nil {
			return err
		}
		// zsh asks newcomers questions unless there is a file.
		if err := os.WriteFile(filepath.Join(root, "home", u.name, ".zshrc"), nil, 0o644); err != nil {
			return err
		}
	}
	edit := func(name string, change func(string) string) error {
		path := filepath.Join(root, "etc", name)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(change(string(text))), 0o644)
	}
	if err := edit("passwd", func(text string) string { return text + passwd.String() }); err != nil {
		return err
	}
	if err := edit("shadow", func(text string) string { return text + shadow.String() }); err != nil {
		return err
	}
	return edit("group", func(text string) string {
		members := strings.TrimPrefix(inSudo.String(), ",")
		return strings.Replace(text, "\nsudo:x:27:\n", "\nsudo:x:27:"+members+"\n", 1) + group.String()
	})
}
