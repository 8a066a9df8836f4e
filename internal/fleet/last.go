package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/disk"
	"ferry/internal/inventory"
)

// Last is what is written down of the last deployment of several nodes of an inventory, so that the rest can be done later.
type Last struct {
	Format    int        `json:"format"`
	Inventory string     `json:"inventory"`
	Action    string     `json:"action"`
	Began     time.Time  `json:"began"`
	Nodes     []LastNode `json:"nodes"`

	file string
}

// LastNode is how far a node came: Status is "" while it is on its way, or if ferry ended before it did.
type LastNode struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
}

// lastFormat is the version of the file. Another one is not read.
const lastFormat = 1

// LastFile is where the last deployment from an inventory file is written down, below ferry's state folder.
func LastFile(state, inventory string) string {
	sum := sha256.Sum256([]byte(inventory))
	return filepath.Join(state, "last", hex.EncodeToString(sum[:8])+".json")
}

// ReadLast reads what file says; fs.ErrNotExist if there is nothing.
func ReadLast(file string) (Last, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Last{}, err
	}
	l := Last{file: file}
	if err := json.Unmarshal(text, &l); err != nil {
		return l, fmt.Errorf("%s: %w", file, err)
	}
	if l.Format != lastFormat {
		return l, fmt.Errorf("%s: format %d is another ferry's: expected %d", file, l.Format, lastFormat)
	}
	return l, nil
}

// Rest are the names of the nodes that are not as was asked.
func (l Last) Rest() []string {
	var names []string
	for _, n := range l.Nodes {
		if n.Status != Done {
			names = append(names, n.Name)
		}
	}
	return names
}

// newLast is a deployment that begins.
func newLast(file, inventory, action string, nodes []inventory.Node) *Last {
	l := &Last{Format: lastFormat, Inventory: inventory, Action: action, Began: time.Now(), file: file}
	for _, n := range nodes {
		l.Nodes = append(l.Nodes, LastNode{Name: n.Name})
	}
	return l
}

// write writes the file.
func (l *Last) write() error { return disk.WriteJSON(l.file, l) }

// end notes how far a node came.
func (l *Last) end(node string, status Status) error {
	for i := range l.Nodes {
		if l.Nodes[i].Name == node {
			l.Nodes[i].Status = status
		}
	}
	return l.write()
}
