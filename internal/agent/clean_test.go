package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"ferry/internal/nix"
)

// messages are all that a target says as JSON.
var messages = map[string]func() any{
	"hello":    func() any { return new(Hello) },
	"progress": func() any { return new(Progress) },
	"response": func() any { return new(Response) },
}

// hostile is what a target may say in each text.
const hostile = "\x1b[2J\x1b]0;title\a\r\n\b\u009b31m\u202etxet\u2066\u200f\u2028 & more"

// fill puts hostile, or as much that is no text, into all of v. It fails for what decode does not know.
func fill(t *testing.T, v reflect.Value, at, is string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(strings.Repeat(hostile, 60))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), at, is)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if is != "bytes" {
				t.Errorf("%s are bytes, and nothing says what they are: give it another type, or the tag is:\"bytes\" and clean what is shown of it", at)
			}
			break
		}
		v.Set(reflect.MakeSlice(v.Type(), 40, 40))
		for i := range v.Len() {
			fill(t, v.Index(i), at, is)
		}
	case reflect.Struct:
		if v.Type() == timeType {
			v.Set(reflect.ValueOf(time.Date(5000, 1, 1, 0, 0, 0, 0, time.UTC)))
			break
		}
		if _, own := v.Addr().Interface().(json.Unmarshaler); own {
			t.Errorf("%s is read by a function of its own", at)
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			fill(t, v.Field(i), at+"."+f.Name, f.Tag.Get("is"))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(-1 << 62)
	case reflect.Uint64:
		v.SetUint(1 << 62)
	default:
		t.Errorf("%s is a %s: what is in it is not cleaned", at, v.Type())
	}
}

// TestEveryTextOfATargetIsCleaned goes through all types of all messages, so that one which is new is cleaned, or fails here.
func TestEveryTextOfATargetIsCleaned(t *testing.T) {
	for name, message := range messages {
		said, got := message(), message()
		fill(t, reflect.ValueOf(said).Elem(), name, "")
		text, err := json.Marshal(said)
		if err != nil {
			t.Fatal(err)
		}
		if err := decode(text, got); err != nil {
			t.Fatal(err)
		}
		n := harmless(t, reflect.ValueOf(got).Elem(), name, "")
		if n < 1 {
			t.Errorf("%s: %d texts were looked at", name, n)
		}
	}
}

// harmless fails the test for a text in v that would move a cursor, read as another one, or has no end. It counts the texts.
func harmless(t *testing.T, v reflect.Value, at, is string) (texts int) {
	switch v.Kind() {
	case reflect.String:
		if v.Type() == verbatimType {
			v = reflect.ValueOf(v.Interface().(Verbatim).String())
		}
		s := v.String()
		reorders := strings.ContainsFunc(s, func(r rune) bool {
			return unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || unicode.IsControl(r)
		})
		if reorders || !utf8.ValidString(s) || len(s) > 2100 || is == "short" && len(s) > maxShort {
			t.Errorf("%s: %d bytes: %.80q", at, len(s), s)
		}
		if _, err := nix.ParseStorePath(s); s != "" && err != nil && (v.Type() == storePathType || is == "path") {
			t.Errorf("%s is no store path: %q", at, s)
		}
		return 1
	case reflect.Pointer:
		if !v.IsNil() {
			return harmless(t, v.Elem(), at, is)
		}
	case reflect.Slice:
		for i := range v.Len() {
			texts += harmless(t, v.Index(i), at, is)
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return 0
		}
		for i := range v.NumField() {
			texts += harmless(t, v.Field(i), at+"."+v.Type().Field(i).Name, v.Type().Field(i).Tag.Get("is"))
		}
	}
	return texts
}

// TestOnlyDecodeReadsWhatATargetSays has no other function of this package read JSON.
func TestOnlyDecodeReadsWhatATargetSays(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "clean.go" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "json.Unmarshal(") || strings.Contains(string(text), "json.NewDecoder(") {
			t.Errorf("%s reads JSON by itself: what a target says is read by decode", file)
		}
	}
}

// A derivation is no path that a target may have as a system or a bundle.
func TestADerivationIsNoSystem(t *testing.T) {
	var h Hello
	drv := "/nix/store/00000000000000000000000000000000-x.drv"
	if err := decode([]byte(`{"facts":{"bundle":"`+drv+`","current":"`+drv+`","profile":"`+string(pathA)+`"}}`), &h); err != nil {
		t.Fatal(err)
	}
	if h.Facts.Bundle != "" || h.Facts.Current != "" || h.Facts.Profile != string(pathA) {
		t.Errorf("%+v", h.Facts)
	}
}

// FuzzDecode reads whatever bytes as each message: nothing that comes out moves a cursor.
func FuzzDecode(f *testing.F) {
	for _, message := range messages {
		text, err := json.Marshal(message())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"switch":{"reason":"\u001b[2J","who":"\u202e","toplevel":"/etc","failed":["\u009b"]},"error":{"kind":"\u001b","text":"\r"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, message := range messages {
			got := message()
			if decode(text, got) == nil {
				harmless(t, reflect.ValueOf(got).Elem(), name, "")
			}
		}
	})
}
