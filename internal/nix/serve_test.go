package nix

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestServeAnswersAboutTheRealStore(t *testing.T) {
	useRealNix(t)
	p := addReal(t, oddTree(t))
	missing := StorePath("/nix/store/" + someHash + "-missing")
	s, stderr, end := dial(t)
	if major, minor := s.Version(); major != 2 || minor < 7 {
		t.Errorf("version %d.%d", major, minor)
	}
	valid, err := s.ValidPaths([]StorePath{missing, p}, true, false)
	if err != nil || !slices.Equal(valid, []StorePath{p}) {
		t.Fatalf("valid: %v, %v\n%s", valid, err, stderr)
	}
	infos, err := s.PathInfos([]StorePath{p, missing})
	if err != nil || len(infos) != 1 {
		t.Fatalf("infos: %v, %v\n%s", infos, err, stderr)
	}
	nar := output(t, "nix-store", "--dump", string(p))
	want := PathInfo{Path: p, NarHash: NarHashOf(sha256.Sum256(nar)), NarSize: uint64(len(nar)), CA: infos[0].CA}
	if !reflect.DeepEqual(infos[0], want) || !strings.HasPrefix(want.CA, "fixed:r:sha256:") {
		t.Errorf("got %+v, want %+v", infos[0], want)
	}
	closure, err := s.Closure([]StorePath{p})
	if err != nil || !slices.Equal(closure, []StorePath{p}) {
		t.Fatalf("closure: %v, %v\n%s", closure, err, stderr)
	}
	if err := end(); err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
}

// sender makes count paths of which each refers to the one before, with the NARs to send.
func sender(t *testing.T, count int) (infos []PathInfo, nars [][]byte) {
	t.Helper()
	last := ""
	for i := range count {
		dir := t.TempDir()
		content := fmt.Sprintf("%s\n%d %d\n%s", last, os.Getpid(), i, strings.Repeat("x", i*1000))
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		var nar bytes.Buffer
		if err := DumpPath(t.Context(), &nar, dir); err != nil {
			t.Fatal(err)
		}
		info := PathInfo{
			Path:    StorePath(fmt.Sprintf("/nix/store/%s%08d-n%d", someHash[:24], i, i)),
			NarHash: NarHashOf(sha256.Sum256(nar.Bytes())),
			NarSize: uint64(nar.Len()),
		}
		if last != "" {
			info.References = []StorePath{StorePath(last)}
			info.Deriver = StorePath("/nix/store/" + someHash + "-n.drv")
			info.Signatures = []string{"key-1:" + strings.Repeat("A", 86) + "=="}
		}
		last = string(info.Path)
		infos, nars = append(infos, info), append(nars, nar.Bytes())
	}
	return infos, nars
}

func TestSendPathRegistersPipelinedPaths(t *testing.T) {
	useRealNix(t)
	infos, nars := sender(t, 30)
	store := t.TempDir()
	for round := range 2 { // the second time everything is valid already
		s, stderr, end := dial(t, "--store", store)
		acks := make(chan error)
		go func() {
			for range infos {
				if err := s.ReadAck(); err != nil {
					acks <- err
					return
				}
			}
			acks <- nil
		}()
		for i, info := range infos {
			if err := s.SendPath(info, bytes.NewReader(nars[i])); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := <-acks; err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, stderr)
		}
		got, err := s.PathInfos([]StorePath{infos[29].Path})
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], infos[29]) {
			t.Errorf("got %+v, %v, want %+v", got, err, infos[29])
		}
		closure, err := s.Closure([]StorePath{infos[29].Path})
		if err != nil || len(closure) != 30 {
			t.Errorf("closure of %d, %v", len(closure), err)
		}
		if err := end(); err != nil {
			t.Errorf("%v\n%s", err, stderr)
		}
	}
	got, err := os.ReadFile(store + string(infos[29].Path) + "/f")
	if err != nil || !bytes.Contains(nars[29], got) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestANarThatIsBrokenOffGoesOn: what has been read before an error has been sent, and the rest may come later.
func TestANarThatIsBrokenOffGoesOn(t *testing.T) {
	useRealNix(t)
	infos, nars := sender(t, 1)
	s, stderr, end := dial(t, "--store", t.TempDir())
	info, nar := infos[0], nars[0]
	broken := errors.New("broken")
	half := len(nar) / 2
	err := s.SendPath(info, io.MultiReader(bytes.NewReader(nar[:half]), iotest.ErrReader(broken)))
	var off *BrokenOffError
	if !errors.As(err, &off) || !errors.Is(err, broken) || off.Sent != uint64(half) || off.Size != info.NarSize || off.Path != info.Path {
		t.Fatalf("%v", err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	rest := func(w io.Writer) error {
		_, err := w.Write(nar[half:])
		return err
	}
	if err := s.SendRest(info, info.NarSize+1, rest); err == nil {
		t.Error("more than all has been sent")
	}
	if err := s.SendRest(info, off.Sent, rest); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Flush(), s.ReadAck()); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	if err := end(); err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
}

func TestSendPathOfAWrongNarIsRefused(t *testing.T) {
	useRealNix(t)
	infos, nars := sender(t, 2)
	nars[1][bytes.Index(nars[1], []byte("xxxx"))] = 'y'
	s, stderr, end := dial(t, "--store", t.TempDir())
	for i, info := range infos {
		if err := s.SendPath(info, bytes.NewReader(nars[i])); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadAck(); err != nil {
		t.Errorf("the first path: %v", err)
	}
	if err := s.ReadAck(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the second path: %v", err)
	}
	if err := end(); err == nil || !strings.Contains(stderr.String(), string(infos[1].Path)) {
		t.Errorf("%v\n%s", err, stderr)
	}
}

func TestSendPathReadsExactlyTheNar(t *testing.T) {
	infos, nars := sender(t, 1)
	nar := bytes.NewReader(append(slices.Clone(nars[0]), "next"...))
	s := answering(t, 2<<8|7, nil)
	if err := s.SendPath(infos[0], nar); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(nar); string(rest) != "next" {
		t.Errorf("%q is left", rest)
	}
	if err := s.SendPath(infos[0], bytes.NewReader(nars[0][8:])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short NAR: %v", err)
	}
}

func TestSendPathNeedsHashAndSize(t *testing.T) {
	infos, nars := sender(t, 1)
	s := answering(t, 2<<8|7, nil)
	for what, change := range map[string]func(*PathInfo){
		"no size": func(i *PathInfo) { i.NarSize = 0 },
		"no hash": func(i *PathInfo) { i.NarHash = "" },
		"endless": func(i *PathInfo) { i.NarSize = 1 << 63 },
	} {
		info := infos[0]
		change(&info)
		if err := s.SendPath(info, bytes.NewReader(nars[0])); err == nil {
			t.Errorf("%s: sent", what)
		}
	}
}

func TestServeVersions(t *testing.T) {
	infos, nars := sender(t, 1)
	if err := answering(t, 2<<8|4, nil).SendPath(infos[0], bytes.NewReader(nars[0])); !errors.Is(err, ErrTooOld) {
		t.Errorf("2.4: %v", err)
	}
	if err := answering(t, 2<<8|8, nil).SendPath(infos[0], bytes.NewReader(nars[0])); err != nil {
		t.Errorf("2.8: %v", err)
	}
	for _, version := range []uint64{1 << 8, 3 << 8, 2<<8 | 1<<32} {
		if _, err := NewServe(bytes.NewReader(hello(version)), io.Discard); err == nil {
			t.Errorf("%#x: taken", version)
		}
	}
}

func TestServeQuotesWhatIsNotTheProtocol(t *testing.T) {
	for said, want := range map[string]string{
		"This account is currently not available.\n": `This account is currently not available.\n`,
		"no":                                 `"no"`,
		"":                                   "EOF",
		"\x1b[31mred alert, all of it\x1b[0": `\x1b[31mred alert`,
	} {
		_, err := NewServe(strings.NewReader(said), io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", said, err)
		}
	}
}

func TestServeRefusesWrongAnswers(t *testing.T) {
	a, b := StorePath("/nix/store/"+someHash+"-a"), StorePath("/nix/store/"+someHash+"-b")
	valid := func(s *Serve) error { _, err := s.ValidPaths([]StorePath{a}, false, false); return err }
	closure := func(s *Serve) error { _, err := s.Closure([]StorePath{a}); return err }
	infos := func(s *Serve) error { _, err := s.PathInfos([]StorePath{a}); return err }
	info := func(w wireWriter, p StorePath, hash string) {
		w.text(string(p))
		w.text("")
		w.paths(nil)
		w.number(0)
		w.number(8)
		w.text(hash)
		w.text("")
		w.texts(nil)
	}
	for what, c := range map[string]struct {
		call   func(*Serve) error
		answer func(w wireWriter)
	}{
		"not asked for":         {valid, func(w wireWriter) { w.paths([]StorePath{b}) }},
		"more than asked for":   {valid, func(w wireWriter) { w.paths([]StorePath{a, a}) }},
		"endless list":          {closure, func(w wireWriter) { w.number(1 << 40) }},
		"endless string":        {closure, func(w wireWriter) { w.number(1); w.number(1 << 40) }},
		"negative string":       {closure, func(w wireWriter) { w.number(1); w.number(1<<64 - 1) }},
		"not a store path":      {closure, func(w wireWriter) { w.number(1); w.text("/etc/passwd") }},
		"padding":               {closure, func(w wireWriter) { w.number(1); w.number(1); w.number(1<<63 | 'a') }},
		"end of file":           {closure, func(w wireWriter) { w.number(2); w.text(string(a)) }},
		"info not asked for":    {infos, func(w wireWriter) { info(w, b, helloSum); w.text("") }},
		"info twice":            {infos, func(w wireWriter) { info(w, a, helloSum); info(w, a, helloSum); w.text("") }},
		"info without hash":     {infos, func(w wireWriter) { info(w, a, ""); w.text("") }},
		"acknowledgement is no": {(*Serve).ReadAck, func(w wireWriter) { w.number(0) }},
		"no acknowledgement":    {(*Serve).ReadAck, func(wireWriter) {}},
	} {
		if err := c.call(answering(t, 2<<8|7, c.answer)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if err := infos(answering(t, 2<<8|7, func(w wireWriter) { info(w, a, helloSum); w.text("") })); err != nil {
		t.Errorf("a right answer: %v", err)
	}
}

// hello is a server's greeting.
func hello(version uint64) []byte {
	var b bytes.Buffer
	w := wireWriter{bufio.NewWriter(&b)}
	w.number(serveAnswer)
	w.number(version)
	_ = w.w.Flush()
	return b.Bytes()
}

// answering is a connection to a server that gives answer to whatever is asked.
func answering(t *testing.T, version uint64, answer func(wireWriter)) *Serve {
	t.Helper()
	b := bytes.NewBuffer(hello(version))
	w := wireWriter{bufio.NewWriter(b)}
	if answer != nil {
		answer(w)
	}
	_ = w.w.Flush()
	s, err := NewServe(b, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func FuzzServe(f *testing.F) {
	a := StorePath("/nix/store/" + someHash + "-a")
	var b bytes.Buffer
	w := wireWriter{bufio.NewWriter(&b)}
	for _, s := range []string{string(a), ""} {
		w.text(s)
	}
	w.paths([]StorePath{a})
	w.number(1)
	w.number(1)
	w.text(helloSum)
	w.text("fixed:r:" + helloSum)
	w.texts([]string{"key:sig"})
	w.text("")
	_ = w.w.Flush()
	f.Add(b.Bytes())
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		open := func() *Serve {
			s, err := NewServe(io.MultiReader(bytes.NewReader(hello(2<<8|7)), bytes.NewReader(data)), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		check := func(paths []StorePath) {
			for _, p := range paths {
				if _, err := ParseStorePath(string(p)); err != nil {
					t.Error(err)
				}
			}
		}
		closure, _ := open().Closure([]StorePath{a})
		check(closure)
		valid, _ := open().ValidPaths([]StorePath{a}, false, false)
		check(valid)
		infos, _ := open().PathInfos([]StorePath{a})
		for _, info := range infos {
			check(append(info.References, info.Path))
			if _, err := ParseNarHash(info.NarHash); err != nil {
				t.Error(err)
			}
		}
		_ = open().ReadAck()
		_, _ = NewServe(bytes.NewReader(data), io.Discard)
	})
}
