package receive

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"ferry/internal/agent/machine"
	"ferry/internal/disk"
	"ferry/internal/nix"
)

const (
	// arrivingFile names what Nix may have registered although its files are not on the disk. It is beside Nix's database: as
	// long as that lasts, so does it.
	arrivingFile = "/nix/var/nix/ferry-arriving.json"
	// bootMark is gone with the power, whatever the kernel says of its boot, which in a container is another machine's.
	bootMark = machine.RunFolder + "/boot"
)

// arriving are the store paths that a power cut may have made empty, or may still: Nix brings its database to the disk, and not
// what that says is in the store. To sync before each registration would cost more than all else that a ship does, so it is
// written down once, before the first path comes, what may come, and forgotten when all of it is on the disk.
type arriving struct {
	// Boot is the boot in which they came; in another one those in Now are in doubt.
	Boot string          `json:"boot"`
	Now  []nix.StorePath `json:"now,omitempty"`
	// Doubtful came in an earlier boot, and have not been looked at since, or are not what was registered.
	Doubtful []nix.StorePath `json:"doubtful,omitempty"`
}

// thisBoot names the present boot.
func thisBoot(r machine.Root) (string, error) {
	mark := r.Line(bootMark)
	if mark == "" {
		mark = rand.Text()
		if err := machine.OwnFolder(r.Path(machine.RunFolder), 0o755); err != nil {
			return "", err
		}
		if err := disk.WriteWhole(r.Path(bootMark), []byte(mark+"\n"), 0o600); err != nil {
			return "", err
		}
	}
	return r.BootID() + " " + mark, nil
}

// readArriving gives what is written down, as it is to be seen in this boot.
func readArriving(r machine.Root) (*arriving, error) {
	boot, err := thisBoot(r)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(r.Path(arrivingFile))
	if errors.Is(err, os.ErrNotExist) {
		return &arriving{Boot: boot}, nil
	}
	if err != nil {
		return nil, err
	}
	a := new(arriving)
	if err := json.Unmarshal(text, a); err != nil {
		return nil, fmt.Errorf("%s: %w; it names what may not be on the disk: run sudo nix-store --verify --check-contents, then remove it", arrivingFile, err)
	}
	if a.Boot != boot {
		a.Doubtful = append(a.Doubtful, a.Now...)
		a.Boot, a.Now = boot, nil
	}
	return a, nil
}

// write writes it down so that it is on the disk. Where there is nothing, the file goes: one that a power cut brings back costs a
// look.
func (a *arriving) write(r machine.Root) error {
	if len(a.Now)+len(a.Doubtful) == 0 {
		return machine.RemoveLink(r.Path(arrivingFile))
	}
	for _, list := range []*[]nix.StorePath{&a.Now, &a.Doubtful} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := r.Disk.MkdirAll(r.Path(filepath.Dir(arrivingFile)), 0o755); err != nil {
		return err
	}
	return r.Disk.WriteFile(r.Path(arrivingFile), text, 0o600)
}

// Expect writes down that these paths, none of which is valid, may come from now on.
func Expect(r machine.Root, paths []nix.StorePath) error {
	if len(paths) == 0 {
		return nil
	}
	a, err := readArriving(r)
	if err == nil {
		come := setOf(paths)
		a.Doubtful = slices.DeleteFunc(a.Doubtful, func(p nix.StorePath) bool { return come[p] })
		a.Now = append(a.Now, paths...)
		err = a.write(r)
	}
	if err != nil {
		return fmt.Errorf("write down what arrives: %w", err)
	}
	return nil
}

// arrived brings what has come in this boot to the disk, and forgets it. Nothing is written where nothing has come.
func arrived(ctx context.Context, r machine.Root) error {
	a, err := readArriving(r)
	if err != nil || len(a.Now) == 0 {
		return err
	}
	if err := StoreToDisk(ctx, r); err != nil {
		return err
	}
	a.Now = nil
	return a.write(r)
}

// trust takes those paths out of what is doubtful of which trusted says so. What they are is on the disk.
func trust(r machine.Root, trusted func(nix.StorePath) bool) error {
	a, err := readArriving(r)
	if err != nil {
		return err
	}
	before := len(a.Doubtful)
	if a.Doubtful = slices.DeleteFunc(a.Doubtful, trusted); len(a.Doubtful) == before {
		return nil
	}
	return a.write(r)
}

func setOf(paths []nix.StorePath) map[nix.StorePath]bool {
	set := make(map[nix.StorePath]bool, len(paths))
	for _, p := range paths {
		set[p] = true
	}
	return set
}

// doubts are what a look at the disk has found out of what is in doubt.
type doubts struct {
	before map[nix.StorePath]bool
	whole  map[nix.StorePath]bool // of those that were looked at
}

// doubts brings what has come in this boot to the disk, and gives what came in an earlier one: to be read before anything is
// activated that needs it. Who does not hold the lock may not be root, and changes nothing.
func (s *Receiver) doubts(ctx context.Context) (*doubts, error) {
	d := &doubts{whole: map[nix.StorePath]bool{}}
	if !s.opts.Locked {
		return d, nil
	}
	if err := arrived(ctx, s.opts.Root); err != nil {
		return nil, err
	}
	a, err := readArriving(s.opts.Root)
	if err != nil {
		return nil, err
	}
	d.before = setOf(a.Doubtful)
	return d, nil
}

// look takes down how a path was found that is in doubt.
func (d *doubts) look(p nix.StorePath, whole bool) {
	if d.before[p] {
		d.whole[p] = whole
	}
}

// settleDoubts forgets what was found whole, and what is not valid any more.
func (s *Receiver) settleDoubts(d *doubts) error {
	if len(d.before) == 0 {
		return nil
	}
	serve, err := s.store.use()
	if err != nil {
		return err
	}
	valid, err := serve.ValidPaths(slices.Collect(maps.Keys(d.before)), false, false)
	if err != nil {
		return s.store.died(err)
	}
	isValid := setOf(valid)
	return trust(s.opts.Root, func(p nix.StorePath) bool { return d.whole[p] || !isValid[p] })
}

// StoreToDisk brings what was shipped to the disk: the paths, and the database that says they are there.
func StoreToDisk(ctx context.Context, r machine.Root) error {
	return r.Disk.SyncFilesystems(ctx, r.Path("/nix/store"), r.Path("/nix/var/nix"))
}
