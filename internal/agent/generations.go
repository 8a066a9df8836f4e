package agent

import "context"

// MethodGenerations asks for the generations of the system profile. It needs neither the lock nor root. Result:
// GenerationsResult.
const MethodGenerations Method = "generations"

// Generation is one of the systems in a target's boot menu.
type Generation struct {
	Number   int    `json:"number"`
	Time     int64  `json:"time"`                             // when it was made, seconds since 1970
	Toplevel string `json:"toplevel" is:"path"`               // "": it is not there any more
	Version  string `json:"version,omitempty" is:"short"`     // NixOS's
	Bundle   string `json:"bundle,omitempty" is:"path"`       // what it was deployed as, if that is known
	Revision string `json:"revision,omitempty" is:"revision"` // git revision of the bundle
	Dirty    bool   `json:"dirty,omitempty"`                  // the bundle's source differed from it

	Current bool `json:"current,omitempty"` // it runs
	Booted  bool `json:"booted,omitempty"`  // it was booted
	Default bool `json:"default,omitempty"` // it is what boots
}

// GenerationsResult are a target's generations.
type GenerationsResult struct {
	Generations []Generation `json:"generations"`       // by number, the newest last
	Older       int          `json:"older"`             // how many older ones there are besides
	Current     string       `json:"current" is:"path"` // toplevel that runs; it may be no generation
	Booted      string       `json:"booted" is:"path"`  // toplevel that was booted
}

// MaxGenerations is how many generations are told at most: what fits into an answer.
const MaxGenerations = 2000

// Generations asks for the target's generations.
func (s *Session) Generations(ctx context.Context) (GenerationsResult, error) {
	response, err := s.request(ctx, Request{Method: MethodGenerations}, nil, nil, nil)
	if err != nil || response.Generations == nil {
		return GenerationsResult{}, orMissing(err)
	}
	return *response.Generations, nil
}
