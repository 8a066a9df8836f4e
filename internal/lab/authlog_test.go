package lab

import "testing"

func TestOnlyCommandsThatSudoRanCount(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		log  string
		want int
	}{
		"nothing":          {"", 0},
		"without terminal": {"Nov 22 20:07:38 : bob : PWD=/home/bob ; USER=root ; COMMAND=/usr/bin/id -un\n", 1},
		"on a terminal":    {"Nov 22 20:07:38 : bob : TTY=pts/0 ; PWD=/home/bob ; USER=root ; COMMAND=/usr/bin/id -un\n", 1},
		"not in sudoers":   {"Nov 22 20:07:38 : carol : user NOT in sudoers ; PWD=/ ; USER=root ; COMMAND=/usr/bin/id\n", 0},
		"no terminal":      {"Nov 22 20:07:39 : rita : no tty ; PWD=/home/rita ; USER=root ; COMMAND=/usr/bin/id -un\n", 0},
		"wrong password":   {"Nov 22 20:07:39 : alice : 3 incorrect password attempts ; PWD=/ ; USER=root ; COMMAND=/usr/bin/id\n", 0},
		"an odd argument":  {"Nov 22 20:07:39 : alice : PWD=/ ; USER=root ; COMMAND=/usr/bin/echo a : b\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := countSudo(test.log); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
