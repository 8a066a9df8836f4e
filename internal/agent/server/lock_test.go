package server

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLockTellsWhoHoldsIt(t *testing.T) {
	m := newMachine(t)
	began := time.Now()
	held, holder, err := takeLock(m.Root, Options{Who: "alice@here", Session: "s1"}, began)
	if err != nil || holder != nil {
		t.Fatalf("%v, %v", holder, err)
	}
	second, holder, err := takeLock(m.Root, Options{Who: "bob@there", Session: "s2", leaving: time.Millisecond}, time.Now())
	if err != nil || second != nil || holder == nil || holder.Who != "alice@here" || holder.Since != began.Unix() {
		t.Errorf("%v, %+v, %v", second, holder, err)
	}
	held.release()
	third, holder, err := takeLock(m.Root, Options{Who: "bob@there", Session: "s2", leaving: time.Millisecond}, time.Now())
	if err != nil || holder != nil {
		t.Fatalf("after it was released: %+v, %v", holder, err)
	}
	third.release()
}

func TestLockIsHeldWhateverStandsInIt(t *testing.T) {
	for _, text := range []string{"", strings.Repeat("[", 1<<20)} {
		m := newMachine(t)
		held, _, err := takeLock(m.Root, Options{Session: "s1"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		m.Write(lockFile, text)
		if got, holder, err := takeLock(m.Root, Options{Session: "s2", leaving: time.Millisecond}, time.Now()); got != nil || holder == nil || err != nil {
			t.Errorf("%.10q: %v, %v, %v", text, got, holder, err)
		}
		held.release()
	}
}

// hold starts an agent that holds the lock for session.
func hold(t *testing.T, session string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "serve", session)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "<nil> <nil>\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd
}

func TestLockIsTakenOverFromAnAgentOfTheSameDeployment(t *testing.T) {
	m := newMachine(t)
	agent := hold(t, "s1")
	if got, holder, err := takeLock(m.Root, Options{Session: "s2", leaving: time.Millisecond}, time.Now()); got != nil || holder == nil || holder.Who != "other@there" || err != nil {
		t.Fatalf("another deployment: %v, %v, %v", got, holder, err)
	}
	held, holder, err := takeLock(m.Root, Options{Session: "s1"}, time.Now())
	if err != nil || holder != nil {
		t.Fatalf("%v, %v", holder, err)
	}
	held.release()
	if err := agent.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("the agent before it: %v", err)
	}
}

// What stands in the file may be of a holder before the present one, and its process number someone else's by now.
func TestLockTakeOverEndsNoOtherProgram(t *testing.T) {
	m := newMachine(t)
	innocent := exec.CommandContext(t.Context(), "sleep", "60")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- innocent.Wait() }()
	held, _, err := takeLock(m.Root, Options{Session: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m.Write(lockFile, `{"session":"s1","pid":`+strconv.Itoa(innocent.Process.Pid)+`}`)
	time.AfterFunc(200*time.Millisecond, held.release)
	again, holder, err := takeLock(m.Root, Options{Session: "s1"}, time.Now())
	if err != nil || holder != nil {
		t.Fatalf("%v, %v", holder, err)
	}
	again.release()
	select {
	case err := <-ended:
		t.Errorf("sleep was ended: %v", err)
	default:
	}
	_ = innocent.Process.Kill()
	<-ended
}

// A job may live longer than the agent that began it. Who comes then must wait for it, unless it is the same deployment.
func TestLockIsNotFreeWhileAJobIsAtWork(t *testing.T) {
	m := newMachine(t)
	work, err := lockWork(m.Root, Job{Who: "alice@here", Session: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got, holder, err := takeLock(m.Root, Options{Session: "s2", leaving: time.Millisecond}, time.Now()); got != nil || err != nil || holder == nil || holder.Who != "alice@here" {
		t.Errorf("another deployment: %v, %v, %v", got, holder, err)
	}
	same, holder, err := takeLock(m.Root, Options{Session: "s1"}, time.Now())
	if err != nil || holder != nil {
		t.Fatalf("the same deployment: %v, %v", holder, err)
	}
	same.release()
	work.release()
	other, holder, err := takeLock(m.Root, Options{Session: "s2", leaving: time.Millisecond}, time.Now())
	if err != nil || holder != nil {
		t.Fatalf("after the job: %v, %v", holder, err)
	}
	other.release()
}

func TestLockThatCannotBeTakenIsAnError(t *testing.T) {
	m := newMachine(t)
	m.Write("/run/ferry", "a file where a folder should be")
	if _, _, err := takeLock(m.Root, Options{Session: "s1"}, time.Now()); err == nil || !strings.Contains(err.Error(), "take the lock") {
		t.Errorf("got %v", err)
	}
}
