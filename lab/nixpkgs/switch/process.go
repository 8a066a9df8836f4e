package main

import (
	"fmt"
	"log/syslog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// start runs a program to its end, with what this one reads and writes.
func start(argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// note writes a line into the machine's log.
func note(text string) {
	log, err := syslog.New(syslog.LOG_USER|syslog.LOG_INFO, "nixos")
	if err != nil {
		return
	}
	_, _ = fmt.Fprint(log, text)
	_ = log.Close()
}

// fault makes the program end or hang where nothing real would do so, for tests: the option system.switch.fault.
type fault struct {
	phase string
	exit  int // -1: none
	sleep time.Duration
	deaf  bool
}

func readFault(action string) fault {
	f := fault{exit: -1}
	for _, affected := range strings.Fields(os.Getenv("FAULT_ACTIONS")) {
		if affected == action {
			f.phase = os.Getenv("FAULT_PHASE")
		}
	}
	if seconds, err := strconv.Atoi(os.Getenv("FAULT_SLEEP")); err == nil {
		f.sleep = time.Duration(seconds) * time.Second
	}
	if code, err := strconv.Atoi(os.Getenv("FAULT_EXIT")); err == nil {
		f.exit = code
	}
	f.deaf = os.Getenv("FAULT_DEAF") != ""
	return f
}

// strike does what is asked for before a phase.
func (f fault) strike(phase string) {
	if f.phase != phase {
		return
	}
	if f.deaf {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		// In a session of its own. What is ignored here is ignored there.
		daemon := exec.Command("sleep", strconv.Itoa(int(f.sleep.Seconds())))
		daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		_ = daemon.Start()
	}
	time.Sleep(f.sleep)
	if f.exit >= 0 {
		say("fault: exit %d before %s", f.exit, phase)
		os.Exit(f.exit)
	}
}
