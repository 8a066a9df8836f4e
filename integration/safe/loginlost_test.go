package safe_test

import (
	"testing"

	"ferry/integration/site"
)

// TestALoginThatIsGoneIsNoticedBeforeAnythingChanges takes the key away while a deployment ships, as `ssh-add -t` and a certificate
// that runs out do: the connection that is there goes on, and nothing could confirm the new system.
func TestALoginThatIsGoneIsNoticedBeforeAnythingChanges(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	key := r.Builder.Home() + "/.ssh/id_ed25519"
	stage := site.OnWire("ship", site.Shipped/2)
	for _, flags := range [][]string{nil, {"--action", "test"}} {
		before := r.State()
		r.Rewrite()
		stage.Begin(r)
		_, ended := r.Background(append([]string{"deploy", "--sudo-password-file", r.Password}, flags...)...)
		r.Await(stage)
		r.Must("mv", key, key+".away")
		stage.Release(r)
		o := ended()
		r.Must("mv", key+".away", key)
		o.Fails(t, 1, "web: activate: no new login is possible, so nothing could confirm the new system: ssh alice@relay", "a key that left ssh-agent since", "nothing has changed")
		r.Want(r.State(), before)
		r.NothingRuns()
	}
	// What has arrived is kept, and what needs no new login goes on without.
	r.Deploy().Says(t, "web: done: generation 2")
}
