package run

import (
	"os"
	"syscall"
)

// Detached is a process that outlives this one.
type Detached struct {
	process *os.Process
	ended   chan struct{}
}

// Detach starts a program that goes on when this one has ended: in a session of its own, which nothing that ends this one ends, in
// the folder /, with this one's environment. The program is a path, and not looked up. Its descriptors are files, from standard input
// on, and null for the first three that are nil or missing; nothing else of this process is open in it. The files stay the caller's
// to close. It is waited for as long as this process lives.
func Detach(argv []string, files ...*os.File) (*Detached, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	given := make([]*os.File, max(len(files), 3))
	copy(given, files)
	for i, file := range given[:3] {
		if file == nil {
			given[i] = null
		}
	}
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Dir: "/", Env: os.Environ(), Files: given, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return nil, err
	}
	d := &Detached{process: p, ended: make(chan struct{})}
	go func() {
		_, _ = p.Wait()
		close(d.ended)
	}()
	return d, nil
}

// Kill ends the process at once, and returns when it has ended.
func (d *Detached) Kill() {
	_ = d.process.Kill()
	<-d.ended
}
