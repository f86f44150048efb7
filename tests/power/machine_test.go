// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twinbd/twinbd/tests/drive"
	"github.com/twinbd/twinbd/tests/harness"
)

const (
	metadataRoom = 4 << 20 // behind the data of a drive
	stateSize    = 8 << 20
)

// machine is a node with a power switch: every disk of it is a drive, one for each
// volume, and one with a file system for what the node itself must remember.
type machine struct {
	*harness.Node
	dir     string
	volumes []volume
	state   *drive.Drive
	random  *rand.Rand

	// While there is power:
	devices []*device
	kernel  []*writeback
}

// volume is a node's drive of a volume, with its metadata behind the data.
type volume struct {
	name  string
	drive *drive.Drive
}

func newMachine(t testing.TB, lab *harness.Lab, n *harness.Node, random *rand.Rand) *machine {
	t.Helper()
	m := &machine{Node: n, random: random, dir: filepath.Join(lab.Dir, n.Name)}
	for _, v := range lab.Volumes() {
		m.volumes = append(m.volumes, volume{v, drive.New(t, m.path(v+".drive"), lab.Size()+metadataRoom)})
	}
	m.state = drive.New(t, m.path("state.drive"), stateSize)
	harness.MustRun(t, "mkfs.ext4", "-q", "-b", "1024", m.path("state.drive"))
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// drives are all drives of the machine.
func (m *machine) drives() []*drive.Drive {
	all := []*drive.Drive{m.state}
	for _, v := range m.volumes {
		all = append(all, v.drive)
	}
	return all
}

// powerOn gives the machine its block devices and its file system. The paths of the
// node's disks lead to them.
func (m *machine) powerOn(t testing.TB) {
	t.Helper()
	for _, d := range m.drives() {
		d.PowerOn(t)
	}
	for _, v := range m.volumes {
		d := attach(t, m.path(v.name+".fuse"), v.drive.URI())
		m.devices = append(m.devices, d)
		if err := errors.Join(removeIfThere(m.Disk(v.name)), os.Symlink(d.name, m.Disk(v.name))); err != nil {
			t.Fatal(err)
		}
		m.kernel = append(m.kernel, startWriteback(d.name, fork(m.random)))
	}
	d := attach(t, m.path("state.fuse"), m.state.URI())
	m.devices = append(m.devices, d)
	d.mount(t, m.path("state"))
	m.kernel = append(m.kernel, startWriteback(m.path("state/*.*"), fork(m.random)))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// boot is powerOn with the daemon.
func (m *machine) boot(t testing.TB) {
	t.Helper()
	m.powerOn(t)
	m.Start(t)
}

// unplug takes the devices away, then the power.
func (m *machine) unplug(t testing.TB) {
	t.Helper()
	for _, w := range m.kernel {
		w.stop()
	}
	m.kernel = nil
	for _, d := range m.devices {
		d.detach(t)
	}
	m.devices = nil
	for _, d := range m.drives() {
		d.PowerOff(t)
	}
}

// cutPower cuts the power of machines, at once. Not until their processes are being
// killed do the drives fail what they were asked: no instruction of a daemon sees it.
func cutPower(t testing.TB, random *rand.Rand, victims ...*machine) (losses []drive.Loss) {
	t.Helper()
	pids := make([]int, len(victims))
	for i, m := range victims {
		pids[i] = m.pid(t)
	}
	for _, m := range victims {
		for _, d := range m.drives() {
			losses = append(losses, d.Cut(random, chance(random)))
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %d: %v", pid, err)
		}
	}
	for _, m := range victims {
		for _, d := range m.drives() {
			d.PowerOff(t)
		}
	}
	for _, m := range victims {
		harness.WaitFor(t, "the end of "+m.Name, patience, func() error {
			if m.Running() {
				return errors.New("it was killed and is there")
			}
			return nil
		})
		m.unplug(t)
	}
	return losses
}

// fork is for another goroutine.
func fork(random *rand.Rand) *rand.Rand {
	return rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
}

// chance is how likely a sector is lost that is not durable: some drives write soon,
// others late.
func chance(random *rand.Rand) float64 {
	return []float64{0.02, 0.3, 0.7, 1}[random.IntN(4)]
}

// pid is the process at the other end of the control socket: cutPower has to do
// something between its death sentence and its end, for which Kill waits.
func (m *machine) pid(t testing.TB) int {
	t.Helper()
	conn, err := net.Dial("unix", m.path("run/twinbd.sock"))
	if err != nil {
		t.Fatalf("%s is not to be reached: %v\n%s", m.Name, err, m.Tail(20))
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var who *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	if who.Pid <= 1 {
		t.Fatal(fmt.Errorf("%s has process id %d", m.Name, who.Pid))
	}
	return int(who.Pid)
}
