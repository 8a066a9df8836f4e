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

func TestMain(m *testing.M) {
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
