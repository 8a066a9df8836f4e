package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"
)

// envVictim makes this test binary a lab that other tests start and kill; its value is the status it ends with.
const envVictim = "FERRY_LAB_TEST_VICTIM"

// envRelay makes it what ferry-lab's relay command is; its value is the address.
const envRelay = "FERRY_LAB_TEST_RELAY"

type standardStreams struct {
	io.Reader
	io.WriteCloser
}

func TestMain(m *testing.M) {
	if addr := os.Getenv(envRelay); addr != "" {
		if _, err := RelayStream(context.Background(), standardStreams{os.Stdin, os.Stdout}, addr, RelayOptions{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if status, err := strconv.Atoi(os.Getenv(envVictim)); err == nil {
		os.Exit(Enter([]string{"bookworm"}, os.Stderr, func() int { return victim(status, os.Stdin, os.Stdout) }))
	}
	Main(m)
}

// victim starts a target, says where its lab is, and answers each line with the machine id of that target.
func victim(status int, in io.Reader, out io.Writer) int {
	target, err := Start(context.Background(), Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	fmt.Fprintln(out, os.Getenv(envScratch))
	for lines := bufio.NewScanner(in); lines.Scan(); {
		id, err := target.Output(context.Background(), "cat", "/etc/machine-id")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 99
		}
		fmt.Fprint(out, string(id))
	}
	return status
}
