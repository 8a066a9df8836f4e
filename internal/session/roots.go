package session

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// Roots is the folder of GC roots, and of what ferry remembers of nodes besides, on this machine: its state folder.
type Roots struct{ Dir string }

// Built is the link that keeps the bundle that was built last for a node of an inventory file.
func (r Roots) Built(inventory, node string) string { return r.link("built", inventory, node) }

// Deployed is the link that keeps the bundle that a node has by the last deployment from here: the base of the next ship's
// differences.
func (r Roots) Deployed(inventory, node string) string { return r.link("deployed", inventory, node) }

// Tried is the link that keeps the bundle that was deployed last with the action test, until another one is committed: it runs
// on the node, and is not what boots.
func (r Roots) Tried(inventory, node string) string { return r.link("tried", inventory, node) }

// Speed is the file that says how fast the last ship to a node was.
func (r Roots) Speed(inventory, node string) string {
	return r.link("speed", inventory, node) + ".json"
}

// link tells nodes of the same name in different inventories apart by the inventory's path.
func (r Roots) link(kind, inventory, node string) string {
	sum := sha256.Sum256([]byte(inventory))
	return filepath.Join(r.Dir, kind, node+"-"+hex.EncodeToString(sum[:4]))
}
