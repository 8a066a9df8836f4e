package agent

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"ferry/internal/nix"
	"ferry/internal/run"
)

// What a target says may be anything, and is shown to people, written to logs and printed as JSON. So everything that it says is read
// by decode, and by nothing else, which cleans every text in it: a field that is new is cleaned as well, without a word in its type. What
// a field may be besides is said by its tag:
//
//	is:"short"     a name, an address or a version, of at most maxShort bytes
//	is:"path"      a store path, which is no derivation, or nothing: it becomes a part of commands that a person is told to run
//	is:"revision"  a git commit, or nothing: it becomes an argument of git's
//	is:"bytes"     bytes of a file, which are parsed and never shown as they are
//
// A [nix.StorePath] is one, or nothing. A [Verbatim] is left as it is. A text without a tag is one line (see [run.Clean]).

// decode reads what a target has said as JSON into to, a pointer, and cleans it.
func decode(text []byte, to any) error {
	if err := json.Unmarshal(text, to); err != nil {
		return err
	}
	clean(reflect.ValueOf(to).Elem(), "")
	return nil
}

// Verbatim is a text of a target's that is compared with others, and so cannot be cleaned. Printed, it is clean.
type Verbatim string

func (v Verbatim) String() string { return run.Clean(string(v)) }

// bounded is a part of a message that has more rules than its texts have: how many there may be of something, and which numbers make
// sense.
type bounded interface{ bound() }

var (
	verbatimType  = reflect.TypeFor[Verbatim]()
	storePathType = reflect.TypeFor[nix.StorePath]()
	timeType      = reflect.TypeFor[time.Time]()
)

// clean cleans v, which can be set, and all that is in it.
func clean(v reflect.Value, is string) {
	switch v.Kind() {
	case reflect.String:
		if v.Type() != verbatimType {
			v.SetString(cleanAs(v, is))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			clean(v.Elem(), is)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 && is == "bytes" {
			break
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			// Nobody has said what is in it.
			v.SetZero()
			break
		}
		for i := range v.Len() {
			clean(v.Index(i), is)
		}
	case reflect.Struct:
		if v.Type() == timeType {
			break
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				clean(v.Field(i), v.Type().Field(i).Tag.Get("is"))
			}
		}
		if b, is := v.Addr().Interface().(bounded); is {
			b.bound()
		}
	case reflect.Map, reflect.Interface, reflect.Chan, reflect.Func:
		// No message has one; TestEveryTextOfATargetIsCleaned fails for the first.
		v.SetZero()
	}
}

func cleanAs(v reflect.Value, is string) string {
	text := v.String()
	switch {
	case v.Type() == storePathType:
		if _, err := nix.ParseStorePath(text); err != nil {
			return ""
		}
		return text
	case is == "path":
		if p, err := nix.ParseStorePath(text); err != nil || p.IsDerivation() {
			return ""
		}
		return text
	case is == "revision":
		if !isRevision(text) {
			return ""
		}
		return text
	case is == "short":
		text = run.Clean(text)
		if len(text) > maxShort {
			text = strings.ToValidUTF8(text[:maxShort], "")
		}
		return text
	}
	return run.Clean(text)
}

// maxShort is how long a name, an address or a version may be, in bytes.
const maxShort = 200

func isRevision(r string) bool {
	return len(r) >= 7 && len(r) <= 64 && strings.Trim(r, "0123456789abcdef") == ""
}

func (h *Hello) bound() {
	h.Parked = onlyWhole(h.Parked)
	h.Facts.Emptied = h.Facts.Emptied[:min(len(h.Facts.Emptied), maxEmptied)]
}

// maxEmptied is how many folders a target may name that a reboot empties.
const maxEmptied = 10

func (e *ResponseError) bound() { e.Parked = onlyWhole(e.Parked) }

// onlyWhole forgets what is no store path.
func onlyWhole(k *Parked) *Parked {
	if k == nil || k.Path == "" {
		return nil
	}
	return k
}

func (r *Response) bound() {
	r.Risks = r.Risks[:min(len(r.Risks), maxRisks)]
	r.Unsure = r.Unsure[:min(len(r.Unsure), maxRisks)]
	r.Wanted = r.Wanted[:min(len(r.Wanted), MaxWanted)]
}

func (r *SwitchResult) bound() {
	r.Left = max(0, min(r.Left, maxSeconds))
	r.UserUnits = r.UserUnits[:min(len(r.UserUnits), MaxFailed)]
}

func (a *Armed) bound() { a.Left = max(0, min(a.Left, maxSeconds)) }

// maxSeconds is how long something on a target may take that it tells in seconds: a week, which no limit of ferry's reaches.
const maxSeconds = 7 * 24 * 60 * 60

func (r *CheckResult) bound() { r.Output = r.Output[max(0, len(r.Output)-CheckLines):] }

func (r *HistoryResult) bound() { r.Entries = r.Entries[:min(len(r.Entries), MaxHistory)] }

func (r *LookResult) bound() {
	r.NixpkgsDate = min(max(r.NixpkgsDate, 0), MaxDate)
	r.Failed = r.Failed[:min(len(r.Failed), MaxFailed)]
	r.Reboot = r.Reboot[:min(len(r.Reboot), len(RebootFiles))]
	r.BootFiles = r.BootFiles[:min(len(r.BootFiles), len(BootFiles))]
	r.Roots = r.Roots[:min(len(r.Roots), maxRisks)]
}

func (e *JournalEntry) bound() {
	e.UserUnits = e.UserUnits[:min(len(e.UserUnits), MaxFailed)]
	e.Time = e.Time.UTC().Truncate(time.Second)
	// Only these can be written as JSON again.
	if year := e.Time.Year(); year < 1970 || year > 9999 {
		e.Time = time.Time{}
	}
}

func (s *JournalState) bound() { s.Generation = max(0, s.Generation) }

// Clean makes an entry from anywhere safe to show and to write: what is no store path, revision or time is emptied, a long
// text is cut.
func (e *JournalEntry) Clean() { clean(reflect.ValueOf(e).Elem(), "") }

// Clean makes a manifest from anywhere safe to show.
func (m *Manifest) Clean() { clean(reflect.ValueOf(m).Elem(), "") }
