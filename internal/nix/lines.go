package nix

import "bytes"

// maxLogLine is the longest line taken whole, in bytes; the rest of a longer one is dropped.
const maxLogLine = 1 << 20

// lineWriter cuts what is written to it into lines for each. The caller calls end after the last write.
type lineWriter struct {
	each func(line string)
	buf  []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			w.add(p)
			return n, nil
		}
		w.add(p[:i])
		w.each(string(w.buf))
		w.buf = w.buf[:0]
		p = p[i+1:]
	}
}

func (w *lineWriter) add(p []byte) {
	if free := maxLogLine - len(w.buf); len(p) > free {
		p = p[:free]
	}
	w.buf = append(w.buf, p...)
}

func (w *lineWriter) end() {
	if len(w.buf) > 0 {
		w.each(string(w.buf))
		w.buf = nil
	}
}
