// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// Everything that users and disks do wrong: each is refused in one line with a
// remedy, and nothing is overwritten.

// serve is the command of a node that is to be refused.
var serve = []string{"serve"}

// stopped is a pair that was written to and stopped in good order: the secondary
// first, so that the record names alpha, and both disks are alike.
func stopped(t *testing.T, o harness.Options) *harness.Lab {
	t.Helper()
	lab := harness.NewPair(t, o)
	put(t, lab.Alpha.Dial(t, data), 1<<20, pattern(1, 1<<20))
	lab.Beta.Stop(t)
	lab.Alpha.Stop(t)
	return lab
}

// untouched remembers disks and metadata of both nodes.
func untouched(t *testing.T, lab *harness.Lab) func() {
	t.Helper()
	var paths []string
	for _, n := range lab.Nodes() {
		paths = append(paths, n.Disk(data), n.Metadata(data))
	}
	return harness.Unchanged(t, paths...)
}

func exchange(t *testing.T, a, b string) {
	t.Helper()
	for _, move := range [][2]string{{a, a + ".away"}, {b, a}, {a + ".away", b}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCreateTwice(t *testing.T) {
	lab := stopped(t, harness.Options{})
	check := untouched(t, lab)
	for _, args := range [][]string{{"create"}, {"create", "--blank"}, {"create", "--keep"}} {
		lab.Alpha.Refused(t, args, "has metadata already", "look at it with `twinbd inspect`")
	}
	check()
}

func TestServeWithoutDisk(t *testing.T) {
	lab := harness.NewLab(t, harness.Options{})
	lab.Alpha.Refused(t, serve, "there is no disk "+lab.Alpha.Disk(data), "make it with `twinbd create data`")
	lab.Alpha.MustRun(t, "create")
	if err := os.Remove(lab.Alpha.Metadata(data)); err != nil {
		t.Fatal(err)
	}
	lab.Alpha.Refused(t, serve, "has no metadata", "`twinbd create data` makes it; --keep adopts a disk with its data")
}

// A disk that holds somebody else's data is not taken, unless it is to be adopted
// with its data, which then is on both disks.
func TestForeignSignature(t *testing.T) {
	harness.Need(t, "mkfs.ext4", "fsck.ext4")
	lab := harness.NewLab(t, harness.Options{})
	disk := lab.Alpha.Disk(data)
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, lab.Size()); err != nil {
		t.Fatal(err)
	}
	harness.MustRun(t, "mkfs.ext4", "-q", disk)
	check := harness.Unchanged(t, disk, lab.Alpha.Metadata(data))
	lab.Alpha.Refused(t, []string{"create"}, disk+" holds", "ext4", "--keep adopts it with its data")
	lab.Alpha.Refused(t, []string{"create", "--blank"}, disk+" holds", "ext4")
	check()

	before := harness.Checksum(t, disk, 0)
	lab.Alpha.MustRun(t, "create", "--keep")
	lab.Beta.MustRun(t, "create")
	lab.Start(t)
	lab.Alpha.MustRun(t, "prim", harness.Service)
	lab.WaitPaired(t, lab.Alpha)
	for _, n := range lab.Nodes() {
		if harness.Checksum(t, n.Disk(data), lab.Size()) != before {
			t.Errorf("the disk of %s is not what was adopted", n.Name)
		}
	}
	harness.MustRun(t, "fsck.ext4", "-fn", lab.Beta.Disk(data))
}

// A disk that is not blank is not called so.
func TestNotBlank(t *testing.T) {
	lab := harness.NewLab(t, harness.Options{})
	disk := lab.Alpha.Disk(data)
	if err := os.WriteFile(disk, pattern(1, int(lab.Size())), 0o600); err != nil {
		t.Fatal(err)
	}
	check := harness.Unchanged(t, disk, lab.Alpha.Metadata(data))
	lab.Alpha.Refused(t, []string{"create", "--blank"}, "does not read as zeroes", "leave --blank out")
	check()
}

// Disks, or only their data, that were exchanged between the nodes are refused.
func TestSwappedDisks(t *testing.T) {
	lab := stopped(t, harness.Options{})
	exchange(t, lab.Alpha.Disk(data), lab.Beta.Disk(data))
	check := untouched(t, lab)
	for _, n := range lab.Nodes() {
		n.Refused(t, serve, "its disk is", "the disk was replaced, cloned or restored")
	}
	check()
	exchange(t, lab.Alpha.Metadata(data), lab.Beta.Metadata(data))
	check = untouched(t, lab)
	for _, n := range lab.Nodes() {
		n.Refused(t, serve, fmt.Sprintf("its node is %q, expected %q", lab.Other(n).Name, n.Name), "the disks were swapped between the nodes, or the node was renamed")
	}
	check()
}

// A copy of a disk is not the disk.
func TestClonedDisk(t *testing.T) {
	lab := stopped(t, harness.Options{})
	disk := lab.Alpha.Disk(data)
	harness.MustRun(t, "cp", disk, disk+".copy")
	harness.MustRun(t, "mv", disk+".copy", disk)
	check := untouched(t, lab)
	lab.Alpha.Refused(t, serve, "its disk is", "cloned")
	check()

	// Made anew it holds nothing that could be served, although the record names
	// its node; the peer serves, and it is copied from there.
	lab.Alpha.MustRun(t, "create", "--anew")
	lab.StartWitness(t)
	lab.Alpha.Start(t)
	lab.Alpha.Refused(t, []string{"prim", harness.Service}, "the disk is new here", "held by alpha", "on beta")
	lab.Beta.Start(t)
	lab.WaitPaired(t, lab.Beta)
	if copied := lab.Beta.Volume(t, data).Counters.ResyncedBytes; copied < 1<<20 {
		t.Errorf("%d bytes were copied to the new disk", copied)
	}
	lab.SameDisks(t)
}

// Nodes whose names were exchanged in the configuration are refused.
func TestSwappedNames(t *testing.T) {
	lab := stopped(t, harness.Options{})
	text := strings.Replace(lab.Config(), fmt.Sprintf("disk = %q", filepath.Join(lab.Dir, "{node}", "data.img")),
		fmt.Sprintf("disk = { alpha = %q, beta = %q }", lab.Beta.Disk(data), lab.Alpha.Disk(data)), 1)
	lab.WriteConfig(t, text)
	check := untouched(t, lab)
	for _, n := range lab.Nodes() {
		n.Refused(t, serve, fmt.Sprintf("its node is %q, expected %q", lab.Other(n).Name, n.Name))
	}
	check()
}

// What the configuration says of a volume must be what its disk was made for.
func TestOtherGeometry(t *testing.T) {
	lab := stopped(t, harness.Options{})
	check := untouched(t, lab)
	right := lab.Config()
	for _, change := range []struct{ old, new, says string }{
		{`size = "32768KiB"`, `size = "16384KiB"`, "`twinbd resize`"},
		{`size = "32768KiB"`, `size = "65536KiB"`, ""},
		{`cluster = "lab"`, `cluster = "office"`, `belongs to service db on node alpha of cluster lab`},
		{"[service.db.volume.data]", "[service.db.volume.data]\nregion = \"64KiB\"", "set `region` to what it was"},
		{"[service.db.volume.data]", "[service.db.volume.data]\nintents = 16", "set `intents` to what it was"},
		{"[service.db.volume.data]", "[service.db.volume.other]", `its volume is "data", expected "other"`},
	} {
		text := strings.Replace(right, change.old, change.new, 1)
		if text == right {
			t.Fatalf("%q is not in the configuration:\n%s", change.old, right)
		}
		lab.WriteConfig(t, text)
		lab.Alpha.Refused(t, serve, change.says)
	}
	check()
}

// Metadata that was cut, or of which both headers are bad, stops the volume; one
// bad header costs nothing, a bad page a resync of its blocks.
func TestDamagedMetadata(t *testing.T) {
	layout, err := bitmap.NewLayout(32<<20, 1<<20, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, path string)
		says   string // empty: it still serves
		copies bool   // and blocks are copied, because nobody knows better
	}{
		"cut":   {func(t *testing.T, path string) { truncate(t, path, 100<<10) }, "metadata of data", false},
		"empty": {func(t *testing.T, path string) { truncate(t, path, 0) }, "metadata of data", false},
		"headers": {func(t *testing.T, path string) {
			flip(t, path, bitmap.HeaderOffset(0)+40)
			flip(t, path, bitmap.HeaderOffset(1)+40)
		}, "metadata of data", false},
		"header 0": {func(t *testing.T, path string) { flip(t, path, bitmap.HeaderOffset(0)+40) }, "", false},
		"header 1": {func(t *testing.T, path string) { flip(t, path, bitmap.HeaderOffset(1)+40) }, "", false},
		"intents": {func(t *testing.T, path string) {
			flip(t, path, layout.IntentsOffset(0)+20)
			flip(t, path, layout.IntentsOffset(1)+20)
		}, "", true},
		"page": {func(t *testing.T, path string) { flip(t, path, layout.PageOffset(0)+100) }, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := stopped(t, harness.Options{})
			c.damage(t, lab.Alpha.Metadata(data))
			lab.StartWitness(t)
			lab.Beta.Start(t)
			if c.says != "" {
				check := harness.Unchanged(t, lab.Alpha.Disk(data), lab.Alpha.Metadata(data), lab.Beta.Disk(data))
				lab.Alpha.Refused(t, serve, c.says, "run `twinbd create --anew data` here")
				lab.Alpha.Refused(t, []string{"inspect"}, "metadata of data")
				check()
				lab.Alpha.MustRun(t, "create", "--anew", data)
				lab.Alpha.Start(t)
				lab.WaitPaired(t, lab.Beta)
				return
			}
			lab.Alpha.Start(t)
			lab.WaitPaired(t, lab.Alpha)
			holds(t, lab.Alpha.Dial(t, data), 1<<20, pattern(1, 1<<20))
			copied := lab.Alpha.Volume(t, data).Counters.ResyncedBytes
			if c.copies != (copied > 0) {
				t.Errorf("%d bytes were copied", copied)
			}
		})
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// flip changes one bit.
func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	harness.Patch(t, path, offset, b)
}

// A second daemon of the same node, or one that would use the same disk, is told
// who is there.
func TestLocked(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	lab.Alpha.Refused(t, serve, "is in use by another twinbd")

	// Another node with places of its own, but the same disk.
	other := harness.NewLab(t, harness.Options{Disk: filepath.Join(lab.Dir, "{node}", "data.img")})
	other.Alpha.Refused(t, serve, lab.Alpha.Disk(data), "in use by another process", "twinbd")
	other.Alpha.Refused(t, []string{"create", "--anew"}, "in use by another process")
	put(t, lab.Alpha.Dial(t, data), 0, pattern(3, 4096))
}

func TestPortInUse(t *testing.T) {
	lab := harness.NewLab(t, harness.Options{TCP: true})
	lab.Alpha.MustRun(t, "create")
	for what, text := range map[string]string{
		"address of alpha": "node.alpha.address must be this machine's, with a port that no other process has",
		"export of alpha":  "another process has the port, or the address is not this machine's",
	} {
		t.Run(what, func(t *testing.T) {
			at := strings.TrimSuffix(strings.TrimPrefix(lab.Alpha.URI(data), "nbd://"), "/"+data)
			if what == "address of alpha" {
				at = lab.Alpha.Address()
			}
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			lab.Alpha.Refused(t, serve, "address already in use", text)
		})
	}
	lab.StartWitness(t)
	harness.WaitFor(t, "the witness", patience, func() error {
		if !strings.Contains(lab.Witness.Log(), "witness ready") {
			return fmt.Errorf("it says %q", lab.Witness.Log())
		}
		return nil
	})
	out := lab.Run(t, "", "witness", "--state", filepath.Join(t.TempDir(), "witness"))
	if out.Code != 1 {
		t.Errorf("a second witness: %s", out)
	}
	harness.CheckRefusal(t, out.Stderr, "address already in use", "with a port that is free")
	out = lab.Run(t, "", "witness", "--listen", "127.0.0.1:0", "--insecure", "--state", filepath.Join(lab.Dir, "witness"))
	if out.Code != 1 {
		t.Errorf("a second witness with the same records: %s", out)
	}
	harness.CheckRefusal(t, out.Stderr, "is in use by another twinbd")
}

func TestSocketInUse(t *testing.T) {
	lab := harness.NewLab(t, harness.Options{})
	lab.Alpha.MustRun(t, "create")
	path := filepath.Join(lab.Dir, "alpha", "run", data+".sock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lab.Alpha.Refused(t, serve, path+" is in use by another process", "give the export another path")
}

// apart starts the nodes of a lab each with a configuration of its own.
func apart(t *testing.T, lab *harness.Lab, alpha, beta string) {
	t.Helper()
	lab.StartWitness(t)
	for n, text := range map[*harness.Node]string{lab.Alpha: alpha, lab.Beta: beta} {
		lab.WriteConfig(t, text)
		n.MustRun(t, "create", "--blank")
		n.Start(t)
	}
	lab.WriteConfig(t, lab.Config())
}

// Nodes whose configurations do not fit say so in their status, both of them.
func TestNodesThatDoNotFit(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"size":    {`size = "32768KiB"`, `size = "16384KiB"`, "size"},
		"cluster": {`cluster = "lab"`, `cluster = "office"`, `belongs to cluster`},
		"volume":  {"[service.db.volume.data]", "[service.db.volume.other]", "is not in the configuration of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := harness.NewLab(t, harness.Options{})
			apart(t, lab, lab.Config(), strings.Replace(lab.Config(), c.old, c.new, 1))
			for _, n := range lab.Nodes() {
				n.WaitReason(t, c.says)
			}
		})
	}
}

// Two machines that both say that they are alpha.
func TestSameName(t *testing.T) {
	lab := harness.NewLab(t, harness.Options{Insecure: true})
	lab.Alpha.MustRun(t, "create")
	lab.Alpha.Start(t)
	// The second sees the addresses and the places the other way round.
	text := lab.Config()
	text = strings.NewReplacer("[node.alpha]", "[node.beta]", "[node.beta]", "[node.alpha]",
		filepath.Join(lab.Dir, "{node}"), filepath.Join(lab.Dir, "beta")).Replace(text)
	text = strings.Replace(text, fmt.Sprintf("disk = %q", lab.Beta.Disk(data)),
		fmt.Sprintf("disk = { alpha = %q, beta = %q }", lab.Beta.Disk(data), lab.Alpha.Disk(data)), 1)
	lab.WriteConfig(t, text)
	lab.Alpha.MustRun(t, "create")
	lab.Beta.StartAs(t, "alpha")
	for _, n := range lab.Nodes() {
		n.WaitReason(t, `both nodes say that they are "alpha": check --node or the host names`)
	}
}

// Where nobody can say whether the other node has newer data, nobody is chosen.
func TestPrimWithoutWitness(t *testing.T) {
	lab := stopped(t, harness.Options{})
	lab.Witness.Kill(t)
	lab.Beta.Start(t)
	lab.Beta.Refused(t, []string{"prim", harness.Service}, "the witness is not reached", "bring the witness back")
	lab.Beta.WaitState(t, control.Wait)
	lab.Beta.Refused(t, []string{"prim", "other"}, `service "other" is not in the configuration`, "it has db")
}

// primforce takes nobody by surprise: without a terminal it wants the volume's name.
func TestPrimforce(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	lab.Beta.Kill(t)
	put(t, lab.Alpha.Dial(t, data), 0, pattern(2, 4096))
	lab.Alpha.WaitState(t, control.Alone)
	lab.Alpha.Kill(t)
	lab.Beta.Start(t)
	lab.Beta.Refused(t, []string{"prim", harness.Service}, "beta may lack acknowledged writes", "since epoch")
	lab.Beta.Refused(t, []string{"primforce", harness.Service}, "data")
	lab.Beta.Refused(t, []string{"primforce", harness.Service, "--volume", "other"}, "data")
	lab.Beta.MustRun(t, "primforce", harness.Service, "--volume", data)
	lab.Beta.WaitState(t, control.Alone)
	put(t, lab.Beta.Dial(t, data), 1<<20, pattern(3, 4096))

	// The other has writes of its own: a split, of which nobody is cured by guessing.
	check := harness.Unchanged(t, lab.Alpha.Disk(data), lab.Beta.Disk(data))
	lab.Alpha.Start(t)
	for _, n := range lab.Nodes() {
		n.WaitReason(t, "both disks have writes that the other lacks")
	}
	lab.Alpha.Refused(t, []string{"prim", harness.Service}, "beta serves db")
	check()
}
