// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/twinbd/twinbd/failover/application"
	"github.com/twinbd/twinbd/nbd"
)

// deviceKernel is the kernel's driver, or one of a test.
type deviceKernel = nbd.Driver

// openKernel finds the driver anew each time: it may be loaded while we run.
func openKernel() (deviceKernel, error) { return nbd.OpenKernel() }

// device is a volume's /dev/nbdN where the volume is served. The kernel is a
// client on connections that this process makes both ends of; they are served by
// the volume's loop like all others. One that dies, for the kernel waited too long
// for an answer, is replaced when what came through it is over: so a long freeze
// costs each connection once, and no request comes twice meanwhile.
type device struct {
	volume  *volume
	log     *slog.Logger
	path    string
	index   int
	backend string // what the kernel is told of who attaches; the same after a restart
	open    func() (deviceKernel, error)

	ends []*deviceEnd // of connections that are served, in the order in which the kernel got them; the loop's

	turn sync.Mutex    // held by whoever changes the attachment
	left []*os.File    // connections of the process before this one, still to be served; under turn
	bell chan struct{} // a connection has died, or what came through it is over

	mu      sync.Mutex
	wanted  bool  // attached, as far as this process knows
	want    int   // connections
	alive   int   // that are served
	ending  int   // that have died while the engine still has requests of theirs
	frail   bool  // it is lost with its connection, and with this process
	lost    error // that this has happened
	problem error // what somebody should look at
}

// Limits of what the kernel may take, besides what the clean stop flushes.
const (
	attachLimit    = 2 * time.Minute // as for a mount: the volume may wait for a right
	detachLimit    = 2 * time.Minute // as for an unmount: what the cache holds is written
	closedPatience = 3 * time.Second // for who has the device open to close it
	mendPause      = 50 * time.Millisecond
	mendRetry      = time.Second
	watchRetry     = 5 * time.Second

	mostConnections = 4
)

// connections is how many a device gets: each has a queue and a lock of its own
// in the kernel. At least two, or a request whose connection dies would have no
// other to go to on older kernels; more than four only cost memory.
func connections(k deviceKernel) int {
	if !k.Replaces() {
		return 1
	}
	return min(mostConnections, max(2, runtime.NumCPU()))
}

// newDevice returns the volume's device on this node, nil when none is configured.
func newDevice(v *volume) (*device, error) {
	n := v.service.node
	path := v.cfg.Device[n.self.Name]
	if path == "" {
		return nil, nil
	}
	index, err := nbd.DeviceIndex(path)
	if err != nil {
		return nil, err
	}
	return &device{
		volume: v, log: v.log.With("device", path), path: path, index: index, open: n.devices,
		backend: fmt.Sprintf("twinbd:%s/%s@%s:%s", n.cfg.Cluster, v.cfg.Name, n.self.Name, n.self.State),
		bell:    make(chan struct{}, 1),
	}, nil
}

// ours reports whether the device is attached by this node: by this process, or
// by one before it on the same boot.
func (d *device) ours(st nbd.DeviceState) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return st.Attached && (st.Backend == d.backend || st.Backend == "" && d.wanted)
}

// attach is the step's way up. A device that is attached still, by an earlier
// process of this node, gets new connections if nothing happened to the service
// in between; else it is detached first: what waits for it is from another time.
func (d *device) attach(ctx context.Context, _ application.Order) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	k, err := d.open()
	if err != nil {
		return err
	}
	st, err := d.settled(ctx, k)
	if err != nil {
		return err
	}
	if d.isWanted() && d.ours(st) {
		return nil // what it lacks mend supplies
	}
	goesOn, err := d.claim(ctx, k, st)
	if err != nil {
		return err
	}
	if err := d.quiet(ctx); err != nil {
		return err
	}
	count := connections(k)
	if goesOn && st.Connections > 0 {
		count = st.Connections // it cannot have more than it was attached with
	}
	d.expect(k, count)
	how, blocks := "attached", nbd.KernelBlockSize
	switch {
	case goesOn && len(d.left) > 0:
		how = "goes on where the process before this one stopped"
		count, err = len(d.left), d.adopt() // what is missing mend supplies
	case goesOn:
		how = "attached again, as it was left by an earlier process"
		err = d.supply(count, blocks, k.Reconfigure)
	default:
		if !k.Replaces() {
			how = attachedByIoctl
		}
		if blocks, err = d.blockSize(ctx); err == nil {
			err = d.connect(ctx, k, count, blocks)
		}
	}
	if err != nil {
		d.forget()
		return err
	}
	if err := k.Node(d.index); err != nil {
		d.log.Warn("no file for the device", "error", err)
	}
	if !goesOn {
		d.findPartitions(ctx)
	}
	d.log.Info(how, "connections", count, "blocks", blocks, "queue", strings.Join(k.Tune(d.index), ", "))
	return nil
}

// claim makes sure that nobody else has the device. It reports whether the device is
// attached and goes on, as an earlier process has left it.
func (d *device) claim(ctx context.Context, k deviceKernel, st nbd.DeviceState) (goesOn bool, err error) {
	switch {
	case d.ours(st) && d.volume.service.inherited.Load():
		return true, d.judge(st, "", "")
	case d.ours(st):
		d.dropLeft()
		return false, d.release(ctx, k)
	}
	mountedAt, err := application.Device(d.path).MountedAt()
	if err != nil {
		return false, err
	}
	d.dropLeft()
	return false, d.judge(st, mountedAt, application.Device(d.path).Users())
}

// findPartitions waits a little, for the steps after this one may be about partitions.
func (d *device) findPartitions(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, closedPatience)
	defer cancel()
	if err := findPartitions(ctx, d.path); err != nil {
		d.log.Warn("partitions may be missing", "error", err)
	}
}

// quiet waits until earlier connections have ended, and nothing that came through
// them is under way.
func (d *device) quiet(ctx context.Context) error {
	for {
		d.mu.Lock()
		earlier := d.alive + d.ending
		d.mu.Unlock()
		if earlier == 0 {
			return nil
		}
		if wait(ctx, lookEvery); ctx.Err() != nil {
			return fmt.Errorf("attach %s: requests of %d earlier connections are not over", d.path, earlier)
		}
	}
}

func (d *device) isWanted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wanted
}

// supply gives the kernel its ends of so many new connections, and serves ours.
func (d *device) supply(count, blocks int, give func(nbd.Setup) error) error {
	setup := nbd.Setup{
		Index: d.index, Size: d.volume.cfg.Size, BlockSize: blocks, Flags: nbd.KernelFlags,
		Timeout: nbd.KernelTimeout, DeadAfter: nbd.KernelDeadAfter, Backend: d.backend,
	}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close() // the kernel has its own hold on what it took; what it did not take ends here
		}
	}()
	for range count {
		kernel, ours, err := nbd.SocketPair()
		if err != nil {
			return fmt.Errorf("attach %s: %w", d.path, err)
		}
		theirs = append(theirs, kernel)
		setup.Sockets = append(setup.Sockets, int(kernel.Fd()))
		if err := d.serve(ours); err != nil {
			return fmt.Errorf("attach %s: %w", d.path, err)
		}
	}
	return give(setup)
}

// connect attaches with new connections; once more when somebody has opened the
// device just before.
func (d *device) connect(ctx context.Context, k deviceKernel, count, blocks int) error {
	ctx, cancel := context.WithTimeout(ctx, closedPatience)
	defer cancel()
	for {
		err := d.supply(count, blocks, k.Connect)
		if !errors.Is(err, nbd.ErrDeviceBusy) || ctx.Err() != nil {
			return err
		}
		wait(ctx, lookEvery)
	}
}

// adopt serves the connections that the process before this one left.
func (d *device) adopt() error {
	left := d.left
	d.left = nil
	for i, end := range left {
		if err := d.serve(end); err != nil {
			closeAll(left[i+1:])
			return fmt.Errorf("attach %s: %w", d.path, err)
		}
	}
	return nil
}

// dropLeft ends them instead.
func (d *device) dropLeft() {
	closeAll(d.left)
	d.left = nil
}

// run replaces connections that die, and has the kernel read all, until ctx ends.
func (d *device) run(ctx context.Context) error {
	go d.listen(ctx)
	retry, read := time.NewTicker(mendRetry), time.NewTicker(readEvery)
	defer retry.Stop()
	defer read.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-read.C:
			if d.isWanted() {
				d.volume.loop.Post(d.freeReader)
			}
			continue
		case <-d.bell:
		case <-retry.C:
		}
		if err := d.mend(); err != nil {
			d.log.Warn("dead connections are not replaced yet", "error", err)
		}
		wait(ctx, mendPause) // the kernel may be about to find out that one is dead
	}
}

// listen hears from the kernel that a connection has died: it may be so full
// that we do not look at it.
func (d *device) listen(ctx context.Context) {
	for ctx.Err() == nil {
		k, err := d.open()
		if err == nil {
			err = k.Watch(ctx, func(index int) {
				if index == d.index {
					d.log.Info("the kernel has given a connection up")
					d.ring()
				}
			})
		}
		if err != nil && !errors.Is(err, nbd.ErrNoDriver) && ctx.Err() == nil {
			d.log.Debug("the kernel's driver is not heard", "error", err)
		}
		wait(ctx, watchRetry)
	}
}

func (d *device) ring() {
	select {
	case d.bell <- struct{}{}:
	default:
	}
}

// mend replaces connections that have died, where the volume is served and
// nothing of them is under way any more.
func (d *device) mend() error {
	if !d.lacks() {
		return nil
	}
	d.turn.Lock()
	defer d.turn.Unlock()
	if !d.lacks() {
		return nil
	}
	k, err := d.open()
	if err != nil {
		return err
	}
	if !k.Replaces() {
		return d.lose(k)
	}
	d.mu.Lock()
	missing := d.want - d.alive
	d.mu.Unlock()
	if err := d.supply(missing, nbd.KernelBlockSize, k.Reconfigure); err != nil {
		return err
	}
	d.log.Info("connections replaced", "connections", missing)
	return nil
}

func (d *device) lacks() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wanted && d.alive < d.want && d.ending == 0 && d.volume.status.Load().Primary
}

// expect: this process keeps the device attached, with so many connections.
func (d *device) expect(k deviceKernel, count int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted, d.want, d.problem, d.lost, d.frail = true, count, nil, nil, !k.Replaces()
}

// forget: this process does not keep the device attached any more.
func (d *device) forget() {
	d.mu.Lock()
	d.wanted, d.lost = false, nil
	d.mu.Unlock()
}

// detach is the step's way down in order: what the cache holds is written while
// the volume is served, then the kernel lets go.
func (d *device) detach(ctx context.Context, _ application.Order) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	d.dropLeft()
	k, ours, err := d.owned()
	if !ours {
		d.forget()
		return err
	}
	flushed := flushDevice(ctx, d.path)
	d.forget()
	return errors.Join(flushed, d.release(ctx, k))
}

// force is the step's way down when the right is lost: whoever has the device
// open is killed, and nothing is written.
func (d *device) force(ctx context.Context, _ application.Order) error {
	d.forget()
	d.turn.Lock()
	defer d.turn.Unlock()
	d.dropLeft()
	k, ours, err := d.owned()
	if !ours {
		return err
	}
	if err := k.Disconnect(d.index); err != nil {
		return err
	}
	killed := application.Device(d.path).Kill(ctx)
	return errors.Join(d.release(ctx, k), killed)
}

// sever makes everything that is asked of the device fail, at once and for good:
// a process that waits for it could not even be killed.
func (d *device) sever(context.Context, application.Order) error {
	d.forget()
	k, ours, err := d.owned()
	if !ours {
		return err
	}
	return k.Disconnect(d.index)
}

// owned reports whether the kernel has the device attached to this node.
func (d *device) owned() (deviceKernel, bool, error) {
	k, err := d.open()
	if errors.Is(err, nbd.ErrNoDriver) || errors.Is(err, errors.ErrUnsupported) {
		return nil, false, nil // nothing can be attached
	}
	if err != nil {
		return nil, false, err
	}
	st, err := k.Look(d.index)
	return k, err == nil && d.ours(st), err
}

// release disconnects the device and waits until nobody has it open. It is of no
// use as long as somebody has: what he still writes must fail.
func (d *device) release(ctx context.Context, k deviceKernel) error {
	if err := k.Disconnect(d.index); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, closedPatience)
	defer cancel()
	for {
		st, err := d.look(k)
		if err != nil {
			return err
		}
		if !st.Used {
			d.note(nil)
			return nil
		}
		if wait(ctx, lookEvery); ctx.Err() != nil {
			return d.note(d.stillOpen())
		}
	}
}

// note keeps what status shows as a problem.
func (d *device) note(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problem = err
	return err
}

// state is what status shows.
func (d *device) state() (text string, problem error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if problem = d.problem; problem == nil {
		problem = d.lost
	}
	if !d.wanted {
		return "detached", problem
	}
	text = fmt.Sprintf("attached, %d connections", d.alive)
	if d.alive < d.want {
		text = fmt.Sprintf("attached, %d of %d connections", d.alive, d.want)
	}
	if d.frail {
		text += ", by ioctl"
	}
	return text, problem
}
