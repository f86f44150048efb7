// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover/application"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// deviceLab is a pair whose volume has a device on both nodes.
func deviceLab(t *testing.T, pace string) (l *lab, alpha, beta *fakeDriver) {
	alpha, beta = newFakeDriver(t), newFakeDriver(t)
	l = newLabOf(t, "1MiB", pace, `device = { alpha = "/dev/nbd0", beta = "/dev/nbd1" }`,
		map[string]func() (deviceKernel, error){"alpha": alpha.open, "beta": beta.open})
	return l, alpha, beta
}

func mustRequest(t *testing.T, d *fakeDriver, op block.Op, offset int64, p []byte) {
	t.Helper()
	if err := d.request(op, offset, p); err != nil {
		t.Fatal(err)
	}
}

func pattern(seed byte) []byte { return bytes.Repeat([]byte{seed}, 8192) }

// A service brings its device up where it is served, and only there; what the
// kernel writes is on both disks.
func TestDeviceFollowsTheService(t *testing.T) {
	l, alpha, beta := deviceLab(t, "normal")
	l.waitFor("alpha", control.Wait)
	l.prim("alpha")
	l.waitFor("alpha", control.Primary)
	alpha.until("attached", alpha.attached)
	setup := alpha.setups[0]
	if setup.Size != 1<<20 || setup.BlockSize != 4096 || setup.Flags != nbd.KernelFlags || len(setup.Sockets) != connections(alpha) ||
		setup.Timeout != nbd.KernelTimeout || setup.DeadAfter != nbd.KernelDeadAfter || !strings.HasPrefix(setup.Backend, "twinbd:lab/data@alpha:") {
		t.Errorf("attached with %+v", setup)
	}
	mustRequest(t, alpha, block.Write, 4096, pattern(1))
	mustRequest(t, alpha, block.Flush, 0, nil)
	st := l.nodes["alpha"].node.Status().Services[0].Volumes[0]
	if st.Device != "/dev/nbd0" || !strings.HasPrefix(st.DeviceState, "attached, ") {
		t.Errorf("status shows %q, %q", st.Device, st.DeviceState)
	}
	if st := l.nodes["beta"].node.Status().Services[0].Volumes[0]; st.DeviceState != "detached" {
		t.Errorf("the secondary's device is %q", st.DeviceState)
	}
	if err := l.act("alpha", "switch"); err != nil {
		t.Fatal(err)
	}
	beta.until("attached", beta.attached)
	if asked := alpha.done(); !slices.Equal(asked, []string{"connect", "disconnect"}) {
		t.Errorf("alpha's driver was asked %v", asked)
	}
	got := make([]byte, 8192)
	mustRequest(t, beta, block.Read, 4096, got)
	if !bytes.Equal(got, pattern(1)) {
		t.Error("what was written at alpha is not read at beta")
	}
	if err := alpha.request(block.Write, 0, pattern(9)); !errors.Is(err, errNoDevice) {
		t.Errorf("a late write at alpha ended with %v", err)
	}
	l.equal()
}

// A connection that the kernel gives up is replaced; requests go on.
func TestDeviceReplacesConnections(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	l.prim("alpha")
	alpha.until("attached", alpha.attached)
	for i := range 3 {
		alpha.killAll()
		mustRequest(t, alpha, block.Write, int64(i)*8192, pattern(byte(i)))
	}
	if asked := alpha.done(); asked[0] != "connect" || !slices.Contains(asked[1:], "reconfigure") || slices.Contains(asked, "disconnect") {
		t.Errorf("asked %v", asked)
	}
}

// While requests of dead connections wait in the engine, those are not replaced:
// else each round of a long standstill would send everything once more.
func TestDeviceWaitsForWhatIsUnderWay(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	l.prim("alpha")
	alpha.until("attached", alpha.attached)
	d := l.nodes["alpha"].node.volume("data").device
	d.ended(0, +1) // as if one were
	alpha.killAll()
	for deadline := time.Now().Add(10 * time.Second); ; {
		d.mu.Lock()
		alive := d.alive
		d.mu.Unlock()
		if alive == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not see that its connections are dead")
		}
		wait(t.Context(), time.Millisecond)
	}
	if err := d.mend(); err != nil {
		t.Error(err)
	}
	if asked := alpha.done(); !slices.Equal(asked, []string{"connect"}) {
		t.Errorf("asked %v", asked)
	}
	d.ended(0, -1)
	mustRequest(t, alpha, block.Write, 0, pattern(1))
}

// Where one thread of the kernel's has all connections to read, and does not come to the
// last, that is read all the same, long before the kernel would give it up.
func TestDeviceIsReadByOneThread(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	alpha.stayBusy()
	l.prim("alpha")
	alpha.until("attached", alpha.attached)
	first := slices.Clone(alpha.ends)
	last := len(first) - 1
	began := time.Now()
	if err := alpha.requestOn(first[last], block.Write, 0, pattern(1)); err != nil {
		t.Fatal(err)
	}
	t.Logf("answered after %v", time.Since(began))
	alpha.until("each other connection replaced", func() bool {
		for i, e := range alpha.ends {
			if e.dead || (e == first[i]) != (i == last) {
				return false
			}
		}
		return true
	})
	if slices.Contains(alpha.done(), "disconnect") {
		t.Error("the device was detached")
	}
}

// A connection whose answers stay unread for another reason costs each of the others at
// most once, and one whose answers are read costs none.
func TestOverlooked(t *testing.T) {
	var e deviceEnd
	count := func(looks int) (overlooked int) {
		e.same = 0
		for range looks {
			if e.same++; e.overlooked() {
				overlooked++
			}
		}
		return overlooked
	}
	if n := count(1000); n != 0 {
		t.Errorf("overlooked %d times with nothing unread", n)
	}
	e.progress.unread = 1
	if n := count(readPatience - 1); n != 0 {
		t.Errorf("overlooked %d times before it was patient", n)
	}
	if n := count(1000); n != mostConnections-1 {
		t.Errorf("overlooked %d times, want %d", n, mostConnections-1)
	}
}

// leaveAttached makes a device look as a process leaves it that is killed: the
// kernel holds it, without a connection that lives.
func leaveAttached(l *lab, d *fakeDriver, name string) {
	volume := l.cfg.Volume("data")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = nil
	d.state = nbd.DeviceState{
		There: true, Used: true, Attached: true, Size: volume.Size, Connections: 2,
		Backend: "twinbd:lab/data@" + name + ":" + l.cfg.Node(name).State,
	}
	d.ends = []*fakeEnd{{dead: true}, {dead: true}}
}

// A node that was killed and serves again, before any other did, goes on with the
// device as it is; what waits in the kernel is not lost.
func TestDeviceIsInherited(t *testing.T) {
	l, alpha, _ := deviceLab(t, "fast")
	l.prim("alpha")
	l.waitFor("alpha", control.Primary)
	alpha.until("attached", alpha.attached)
	l.stop("beta")
	l.waitFor("alpha", control.Alone)
	l.stop("alpha")
	leaveAttached(l, alpha, "alpha")
	waiting := make(chan error, 1)
	go func() { waiting <- alpha.request(block.Write, 0, pattern(7)) }()
	l.start("alpha")
	l.waitFor("alpha", control.Alone)
	select {
	case err := <-waiting:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("what waited in the kernel does not end; asked %v", alpha.done())
	}
	if asked := alpha.done(); asked[0] != "reconfigure" || slices.Contains(asked, "disconnect") {
		t.Errorf("asked %v", asked)
	}
}

// A node is replaced while programs write: in a pair, and alone. Its successor goes on
// with the connections, the kernel is not even asked, and no request fails.
func TestDeviceIsHandedOn(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprintf("alone %t", alone), func(t *testing.T) {
			l, alpha, _ := deviceLab(t, "normal")
			l.prim("alpha")
			l.waitFor("alpha", control.Primary)
			alpha.until("attached", alpha.attached)
			want := control.Primary
			if alone {
				l.stop("beta")
				want = control.Alone
				l.waitFor("alpha", want)
			}
			w := alpha.writes(t)
			for round := range 3 {
				w.more(t, 20)
				left, err := l.nodes["alpha"].node.HandOn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if n := len(left.Sockets["data"]); n != connections(alpha) || !slices.Equal(left.Running, []string{"pg"}) {
					t.Fatalf("left %d connections and %q running", n, left.Running)
				}
				l.stop("alpha")
				l.startAfter("alpha", left)
				w.more(t, 20)
				l.waitFor("alpha", want)
				t.Logf("round %d: the longest write took %v", round, w.longest())
			}
			w.stop(t)
			if asked := alpha.done(); !slices.Equal(asked, []string{"connect"}) {
				t.Errorf("asked %v", asked)
			}
			if !alone {
				l.equal()
			}
		})
	}
}

// While a request does not come to an end, nothing is handed on, and the node serves.
func TestHandOnServesOn(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	l.prim("alpha")
	alpha.until("attached", alpha.attached)
	n := l.nodes["alpha"].node
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the time is over before it began
	if _, err := n.HandOn(ctx); !errors.Is(err, errServesOn) || n.HandedOn() {
		t.Errorf("handed on: %t, %v", n.HandedOn(), err)
	}
	mustRequest(t, alpha, block.Write, 0, pattern(1))
}

// A connection that is replaced while the node rests is not read: it is handed on with
// what the kernel has sent on it, or goes on when the node does.
func TestNothingIsReadAtRest(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	l.prim("alpha")
	l.waitFor("alpha", control.Primary)
	alpha.until("attached", alpha.attached)
	n := l.nodes["alpha"].node
	v := n.volume("data")
	v.device.ended(0, +1) // a request of a connection that has died is under way
	alpha.killAll()
	for alive := 1; alive > 0; wait(t.Context(), time.Millisecond) {
		v.device.mu.Lock()
		alive = v.device.alive
		v.device.mu.Unlock()
	}
	if err := n.rest(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.device.ended(0, -1)
	w := alpha.writes(t)
	alpha.until("replaced", func() bool { return slices.Contains(alpha.asked, "reconfigure") })
	wait(t.Context(), 50*time.Millisecond)
	if w.mu.Lock(); w.count != 0 {
		t.Errorf("%d requests are answered at rest", w.count)
	}
	w.mu.Unlock()
	v.do(func(time.Duration) { v.resume() })
	w.more(t, 1)
	w.stop(t)
}

// A node that is told to stop while it hands on lays everything down all the same: its
// successor stops. One that is told before does not hand on.
func TestHandOnAndStop(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	l.prim("alpha")
	l.waitFor("alpha", control.Primary)
	alpha.until("attached", alpha.attached)
	n := l.nodes["alpha"].node
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for !n.HandedOn() {
			wait(t.Context(), 50*time.Microsecond)
		}
		cancel()
		l.stop("alpha")
	}()
	if left, err := n.HandOn(ctx); err != nil || len(left.Sockets["data"]) == 0 || !slices.Equal(left.Served, []string{"pg"}) {
		t.Errorf("left %+v, %v", left, err)
	}
	<-stopped
	if _, err := n.HandOn(ctx); !errors.Is(err, errServesOn) {
		t.Errorf("a node that has ended hands on: %v", err)
	}
}

// A node that was killed and finds another in its place disconnects what it had
// left, before anything else.
func TestDeviceOfAReplacedNode(t *testing.T) {
	l, alpha, beta := deviceLab(t, "fast")
	l.prim("alpha")
	l.waitFor("alpha", control.Primary)
	l.waitFor("beta", control.Secondary)
	l.stop("alpha") // hands over
	beta.until("attached", beta.attached)
	leaveAttached(l, alpha, "alpha")
	waiting := make(chan error, 1)
	go func() { waiting <- alpha.request(block.Write, 0, pattern(7)) }()
	l.start("alpha")
	l.waitFor("alpha", control.Secondary)
	if err := <-waiting; !errors.Is(err, errNoDevice) {
		t.Errorf("what waited in the kernel ended with %v", err)
	}
	if asked := alpha.done(); asked[0] != "disconnect" || slices.Contains(asked, "reconfigure") {
		t.Errorf("asked %v", asked)
	}
}

// A device that stays open after a demotion is said to need a reboot, and does
// not serve again with what is left in its cache.
func TestDeviceStaysOpen(t *testing.T) {
	l, alpha, beta := deviceLab(t, "normal")
	l.prim("alpha")
	l.waitFor("alpha", control.Primary)
	l.waitFor("beta", control.Secondary)
	alpha.until("attached", alpha.attached)
	alpha.mu.Lock()
	alpha.opened = true
	alpha.mu.Unlock()
	if err := l.act("alpha", "switch"); err != nil {
		t.Fatal(err)
	}
	beta.until("attached", beta.attached)
	problems := l.nodes["alpha"].node.Status().Services[0].Volumes[0].Problems
	if len(problems) == 0 || !strings.Contains(problems[0].Message, "is still open") || !strings.Contains(problems[0].Hint, "reboot this node") {
		t.Errorf("problems: %v", problems)
	}
	alpha.done()
	err := l.nodes["alpha"].node.volume("data").device.attach(t.Context(), orderOfTest)
	if err == nil || !strings.Contains(err.Error(), "reboot this node") {
		t.Errorf("attached again: %v", err)
	}
	if asked := alpha.done(); slices.Contains(asked, "reconfigure") || slices.Contains(asked, "connect") {
		t.Errorf("asked %v", asked)
	}
}

// Only the node that serves attaches by hand; what is attached already stays.
func TestAttachByHand(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	if err := l.act("alpha", "attach"); err == nil || !strings.Contains(err.Error(), "does not serve") {
		t.Errorf("attached without serving: %v", err)
	}
	l.prim("alpha")
	alpha.until("attached", alpha.attached)
	for _, verb := range []string{"attach", "detach", "detach", "attach"} {
		if err := l.act("alpha", verb); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if asked := alpha.done(); !slices.Equal(asked, []string{"connect", "disconnect", "connect"}) {
		t.Errorf("asked %v", asked)
	}
	mustRequest(t, alpha, block.Write, 0, pattern(1))
}

// Who opens the device at the moment it is attached, as udev may, only delays that.
func TestAttachWhileSomebodyGlances(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	alpha.glance = true
	l.prim("alpha")
	alpha.until("attached", alpha.attached)
	if asked := alpha.done(); !slices.Equal(asked, []string{"connect", "connect"}) {
		t.Errorf("asked %v", asked)
	}
	mustRequest(t, alpha, block.Write, 0, pattern(1))
}

func TestDeviceJudge(t *testing.T) {
	l, _, _ := deviceLab(t, "normal")
	d := l.nodes["alpha"].node.volume("data").device
	const other = 12 << 20
	for _, test := range []struct {
		state            nbd.DeviceState
		mountedAt, users string
		want             string // "": it can be had
	}{
		{state: nbd.DeviceState{There: true}},
		{state: nbd.DeviceState{}},
		{state: nbd.DeviceState{Attached: true, Used: true, Backend: d.backend, Size: 1 << 20}},
		{state: nbd.DeviceState{Attached: true, Used: true, Backend: d.backend, Size: other}, want: "with 12582912 bytes, and the volume has 1048576; hint: stop the service here"},
		{state: nbd.DeviceState{Attached: true, Used: true, Backend: "twinbd:lab/other@alpha:/x"}, want: "is attached already, by twinbd:lab/other@alpha:/x; hint: give the volume another device"},
		{state: nbd.DeviceState{Attached: true, Used: true, PID: 4711}, want: "is attached already, by process 4711; hint: give the volume another device, or end that one: nbd-client -d /dev/nbd0"},
		{mountedAt: "/mnt", want: "is mounted at /mnt, from before it was detached; hint: umount /mnt"},
		{state: nbd.DeviceState{Used: true}, users: "postgres (12)", want: "is open in postgres (12); hint: end them"},
		{state: nbd.DeviceState{Used: true}, want: "is in use; hint: `fuser -v /dev/nbd0`"},
		{state: nbd.DeviceState{Holders: []string{"dm-0"}}, want: "is part of dm-0; hint: "},
	} {
		err := d.judge(test.state, test.mountedAt, test.users)
		if (test.want == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), "/dev/nbd0 "+test.want) {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v: %v, want %s", test.state, err, test.want)
			}
		}
	}
}

// orderOfTest is nobody's decision: it always holds.
var orderOfTest application.Order

// Without a driver the service says so, with the remedy, and its data is served
// all the same.
func TestDeviceWithoutDriver(t *testing.T) {
	if _, err := nbd.OpenKernel(); !errors.Is(err, nbd.ErrNoDriver) {
		t.Skipf("this kernel has the driver, or does not say: %v", err)
	}
	l := newLabOf(t, "1MiB", "fast", `device = { alpha = "/dev/nbd0", beta = "/dev/nbd1" }`, nil)
	l.prim("alpha")
	deadline := time.Now().Add(20 * time.Second)
	for {
		reason := l.nodes["alpha"].node.Status().Services[0].Reason
		if strings.Contains(reason, "attach data: the kernel has no NBD driver loaded") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the reason is %q", reason)
		}
		wait(t.Context(), time.Millisecond)
	}
	c := l.dial("alpha")
	defer c.Close()
	if err := c.WriteAt(pattern(1), 0, 0); err != nil {
		t.Error(err)
	}
	if err := l.act("alpha", "attach"); err == nil || !strings.Contains(err.Error(), "hint: modprobe nbd") {
		t.Errorf("attached by hand: %v", err)
	}
}
