package safe_test

import (
	"testing"

	"ferry/integration/site"
)

// TestAFolderThatIsSomebodyElsesIsRefused gives folders that ferry keeps things in to somebody else, as a service does that has them
// as its own: nothing is run from there, and the owner of the machine is told what to do.
func TestAFolderThatIsSomebodyElsesIsRefused(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	for _, login := range []string{"alice", "root"} {
		s.Inventory(s.Node(login + "@" + s.Target.Name()))
		for _, c := range []struct{ spoil, mend, says, hint string }{
			{"mkdir -p /var/lib/ferry && chown dora /var/lib/ferry", "chown root /var/lib/ferry",
				"web: connect: the agent would not be safe on the target: /var/lib/ferry belongs to dora", "a service with StateDirectory=ferry has it"},
			{"mkdir -p /var/lib/private && chmod 700 /var/lib/private && mv /var/lib/ferry /var/lib/private/ferry && ln -s private/ferry /var/lib/ferry && chown 61234 /var/lib/private/ferry",
				"rm /var/lib/ferry && mv /var/lib/private/ferry /var/lib/ferry && chown root /var/lib/ferry",
				"web: connect: the agent would not be safe on the target: /var/lib/private/ferry belongs to 61234", "a service with StateDirectory=ferry has it"},
			{"chmod 1777 /var/lib", "chmod 755 /var/lib",
				"web: connect: the agent would not be safe on the target: others than root may write to /var/lib (mode 1777)", "sudo chmod go-w /var/lib"},
			{"mount -t tmpfs -o mode=755,noexec none /var/lib/ferry", "umount /var/lib/ferry",
				"web: connect: the agent cannot run on the target: the file system of /var/lib/ferry is mounted noexec", "sudo mount -o bind,exec /var/lib/ferry"},
			{"mkdir -p /run/ferry && chown dora /run/ferry", "chown root /run/ferry", "web: connect: the agent did not start: ferry-agent: /run/ferry belongs to the user with the number ", ""},
			{"mkdir -p /var/log/ferry && chown dora /var/log/ferry", "chown root /var/log/ferry",
				"web: connect: the agent did not start: ferry-agent: /var/log/ferry belongs to the user with the number ", ""},
		} {
			before := s.State()
			s.OnTarget("sh", "-c", c.spoil)
			o := s.Ferry("deploy", "--sudo-password-file", s.Password)
			if c.hint == "" {
				o.Fails(t, 1, c.says)
			} else {
				o.Fails(t, 1, c.says, c.hint)
			}
			s.OnTarget("sh", "-c", c.mend)
			s.Want(s.State(), before)
		}
		s.Write("web/configuration.nix", site.Configuration("as "+login))
		s.Deploy().Says(t, "web: done: generation ")
	}
}
