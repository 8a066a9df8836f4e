package cli

import (
	"io"
	"time"

	"ferry/internal/agent"
	"ferry/internal/status"
)

// statusJSON is a node as ferry status --json prints it.
type statusJSON struct {
	Node      string      `json:"node"`
	Target    string      `json:"target"`
	Attention string      `json:"attention"`
	Points    []pointJSON `json:"points"`
	Reached   bool        `json:"reached"`
	Error     string      `json:"error"`

	Host            string `json:"host"`
	System          string `json:"system"`
	Version         string `json:"version"`
	NixpkgsRevision string `json:"nixpkgs_revision"`
	NixpkgsDate     string `json:"nixpkgs_date"`
	Revision        string `json:"revision"`
	Dirty           bool   `json:"dirty"`
	Relation        string `json:"relation"`
	Behind          int    `json:"behind"`
	Ahead           int    `json:"ahead"`

	Deployed *deployedJSON `json:"deployed"`
	Last     *lastJSON     `json:"last"`

	Current     string   `json:"current"`
	Default     string   `json:"default"`
	Booted      string   `json:"booted"`
	Generation  int      `json:"generation"`
	Reboot      []string `json:"reboot"`
	Failed      []string `json:"failed"`
	FailedKnown bool     `json:"failed_known"`
	StoreFree   int64    `json:"store_free"`
	BootFree    int64    `json:"boot_free"`

	Armed *armedJSON `json:"armed"`
	Lock  *lockJSON  `json:"lock"`
}

type pointJSON struct {
	Attention string `json:"attention"`
	Text      string `json:"text"`
}

type deployedJSON struct {
	Time   string `json:"time"`
	Who    string `json:"who"`
	From   string `json:"from"`
	Action string `json:"action"`
}

type lastJSON struct {
	deployedJSON
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

type armedJSON struct {
	Toplevel string `json:"toplevel"`
	Who      string `json:"who"`
	Phase    string `json:"phase"`
	Left     int    `json:"left"`
	Reboot   bool   `json:"reboot"`
}

type lockJSON struct {
	Who   string `json:"who"`
	From  string `json:"from"`
	Since string `json:"since"`
}

func writeStatusJSON(w io.Writer, list []status.Node) error {
	nodes := []statusJSON{}
	for _, s := range list {
		nodes = append(nodes, statusToJSON(s))
	}
	return writeJSON(w, struct {
		Nodes []statusJSON `json:"nodes"`
	}{nodes})
}

func statusToJSON(s status.Node) statusJSON {
	f := s.Facts
	j := statusJSON{
		Node: s.Node.Name, Target: s.Node.Target, Attention: s.Attention.String(), Points: []pointJSON{}, Reached: s.Err == nil,
		Host: f.Host, System: f.System, Version: f.Version, NixpkgsRevision: s.NixpkgsRevision,
		Revision: s.Revision, Dirty: s.Dirty, Behind: s.Standing.Behind, Ahead: s.Standing.Ahead,
		Current: f.Current, Default: f.Profile, Booted: f.Booted, Generation: f.Generation,
		Reboot: append([]string{}, s.More.Reboot...), Failed: append([]string{}, s.More.Failed...), FailedKnown: s.Err == nil && s.More.UnitsError == "",
		StoreFree: f.StoreFree, BootFree: f.BootFree,
	}
	for _, p := range s.Points {
		j.Points = append(j.Points, pointJSON{p.Attention.String(), p.Text})
	}
	if s.Err != nil {
		j.Error = s.Err.Error()
	} else {
		j.Relation = string(s.Standing.Relation)
	}
	if !s.NixpkgsDate.IsZero() {
		j.NixpkgsDate = s.NixpkgsDate.Format(time.DateOnly)
	}
	if s.Deployed != nil {
		d := toDeployedJSON(s.Deployed)
		j.Deployed = &d
	}
	if f.Last != nil {
		j.Last = &lastJSON{toDeployedJSON(f.Last), string(f.Last.Outcome), f.Last.Reason}
	}
	if a := s.More.Armed; a != nil {
		j.Armed = &armedJSON{a.Toplevel, a.Who, string(a.Phase), a.Left, a.Reboot}
	}
	if l := s.More.Lock; l != nil {
		j.Lock = &lockJSON{l.Who, l.From, timeJSON(l.Since)}
	}
	return j
}

func toDeployedJSON(e *agent.JournalEntry) deployedJSON {
	return deployedJSON{timeJSON(e.Time.Unix()), e.Who, e.From, e.Action}
}
