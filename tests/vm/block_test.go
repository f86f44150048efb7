// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/twinbd/twinbd/tests/harness"
)

// What the tests of the kernel's driver hold (blktests, group nbd) holds when the
// daemon is who attaches: partitions are seen as soon as there is a device, and gone
// with it; who opens or mounts the device meanwhile is in nobody's way; and the module
// may go and come back.
func TestBlock(t *testing.T) {
	c := newCluster(t, options{size: 64 << 20, volume: deviceLine, pace: `{ heartbeat = "1s", timeout = "20s" }`})
	for _, part := range []struct {
		name string
		hold func(*cluster, *testing.T)
	}{
		{"partitions", (*cluster).partitions},
		{"opened meanwhile", (*cluster).openedMeanwhile},
		{"mounted meanwhile", (*cluster).mountedMeanwhile},
		{"module loaded anew", (*cluster).moduleAnew},
		{"module loaded anew meanwhile", (*cluster).moduleMeanwhile},
	} {
		t.Run(part.name, func(t *testing.T) { part.hold(c, t) })
		if t.Failed() {
			return // the next would begin from something else
		}
	}
	for _, n := range c.nodes() {
		n.checkKernel(t)
	}
}

// partitions: a table that was written to the device is seen where the service goes,
// of whatever kind it is. One that is in use keeps the device from being detached.
func (c *cluster) partitions(t *testing.T) {
	const show = "blockdev --getsize64 /dev/nbd0 /dev/nbd0p1 /dev/nbd0p2; head -c 1048576 /dev/nbd0p1 /dev/nbd0p2 | cksum"
	serves := c.waitServing(t)
	for _, label := range []string{"dos", "gpt"} {
		serves.shell(t, fmt.Sprintf(`
printf 'label: %s\nsize=8MiB\nsize=12MiB\n' | sfdisk --quiet /dev/nbd0
for i in 1 2; do yes "$i" | dd of=/dev/nbd0p$i bs=64K count=16 iflag=fullblock conv=fsync status=none; done`, label))
		want := serves.shell(t, show)
		if sizes := fmt.Sprintf("%d\n%d\n%d\n", c.options.size, 8<<20, 12<<20); !strings.HasPrefix(want, sizes) {
			t.Fatalf("%s: the device and its partitions have\n%s", label, want)
		}
		serves.shell(t, "mkdir -p /part; mkfs.ext4 -q /dev/nbd0p2; mount /dev/nbd0p2 /part")
		if out := serves.run(t, "twinbd", "detach", volumeName); out.Code == 0 || !strings.Contains(out.Stderr, "umount /part") {
			t.Errorf("detach while a partition is mounted: %s", out)
		}
		want = serves.shell(t, "umount /part; "+show)
		serves.must(t, "twinbd", "detach", volumeName)
		serves.shell(t, ": </dev/nbd0; [ ! -e /dev/nbd0p1 ]")
		serves.must(t, "twinbd", "attach", volumeName)
		if got := serves.shell(t, show); got != want {
			t.Errorf("%s: attached again it has\n%s\nand had\n%s", label, got, want)
		}
		next := c.other(serves)
		serves.must(t, "twinbd", "switch", serviceName)
		c.waitPair(t, next)
		if got := next.shell(t, show); got != want {
			t.Errorf("%s: on the other node it has\n%s\nand had\n%s", label, got, want)
		}
		serves = next
	}
}

// meanwhile runs a script again and again while work is done, and holds that it can
// be ended.
func (n *node) meanwhile(t *testing.T, script string, work func()) {
	t.Helper()
	loop := n.start(t, nil, nil, "sh", "-c", "rm -f /tmp/stop; until [ -e /tmp/stop ]; do "+script+"; done 2>/dev/null; true")
	work()
	n.must(t, "touch", "/tmp/stop")
	if out, err := loop.wait(patience); err != nil || out.Code != 0 {
		t.Fatalf("what ran meanwhile on %s does not end: %s, %v", n.name, out, err)
	}
}

// openedMeanwhile: the device is attached and detached again and again while others
// open it and close it, as udev does.
func (c *cluster) openedMeanwhile(t *testing.T) {
	serves := c.waitServing(t)
	const glance = "dd if=/dev/nbd0 of=/dev/null bs=4096 count=1 status=none"
	serves.meanwhile(t, glance+"& "+glance+"; wait", func() {
		for i := range 12 {
			for _, verb := range []string{"detach", "attach"} {
				if out := serves.run(t, "twinbd", verb, volumeName); out.Code != 0 {
					t.Errorf("%s for the %d. time: %s", verb, i+1, out)
				}
			}
		}
		serves.must(t, "twinbd", "detach", volumeName)
	})
	serves.shell(t, "[ ! -e /sys/block/nbd0/pid ] && [ $(cat /sys/block/nbd0/size) = 0 ]")
	serves.must(t, "twinbd", "attach", volumeName)
}

// mountedMeanwhile: the service goes to and fro while programs on both nodes mount the
// device and unmount it, wherever it is.
func (c *cluster) mountedMeanwhile(t *testing.T) {
	serves := c.waitServing(t)
	serves.shell(t, "mkfs.ext4 -q -F /dev/nbd0")
	const mounts = "mount /dev/nbd0 /data && umount /data"
	c.alpha.meanwhile(t, mounts, func() {
		c.beta.meanwhile(t, mounts, func() {
			for range 4 {
				next := c.other(serves)
				serves.must(t, "twinbd", "switch", serviceName)
				c.waitPair(t, next)
				serves = next
			}
		})
	})
	serves.shell(t, "fsck.ext4 -p /dev/nbd0 || [ $? = 1 ]; mount /dev/nbd0 /data; umount /data")
}

const moduleLine = "modprobe nbd nbds_max=4"

// moduleAnew: while the service is stopped the module is unloaded and loaded. The
// device is attached as before, and the daemon hears of connections that die.
func (c *cluster) moduleAnew(t *testing.T) {
	c.alpha.must(t, "twinbd", "stop", serviceName, "--all")
	for _, n := range c.nodes() {
		n.shell(t, "modprobe -r nbd; "+moduleLine)
	}
	c.alpha.must(t, "twinbd", "start", serviceName, "--all")
	serves := c.waitServing(t)
	heard, timeouts := serves.logged(t, gaveUp), serves.timeouts(t)
	serves.daemon.signal(t, syscall.SIGSTOP)
	waits := serves.start(t, nil, nil, "dd", "if=/dev/zero", "of=/dev/nbd0", "bs=4096", "count=1", "oflag=direct", "status=none")
	harness.WaitFor(t, "the kernel to give a connection up", patience, func() error {
		if serves.timeouts(t) == timeouts {
			return errors.New("it has not")
		}
		return nil
	})
	serves.daemon.signal(t, syscall.SIGCONT)
	if out, err := waits.wait(patience); err != nil || out.Code != 0 {
		t.Errorf("what waited for the daemon: %s, %v", out, err)
	}
	harness.WaitFor(t, "the daemon to hear of that", patience, func() error {
		if serves.logged(t, gaveUp) == heard {
			return errors.New("it has not")
		}
		return nil
	})
	c.waitPair(t, serves)
}

// timeouts is how often the kernel has waited too long for an answer.
func (n *node) timeouts(t testing.TB) int {
	t.Helper()
	count, err := strconv.Atoi(strings.TrimSpace(n.shell(t, "dmesg | grep -c 'Connection timed out' || true")))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// moduleMeanwhile: the module is unloaded and loaded again and again while the daemon
// attaches and detaches, which may fail then. Afterwards all is as ever.
func (c *cluster) moduleMeanwhile(t *testing.T) {
	serves := c.waitServing(t)
	attached := 0
	serves.meanwhile(t, "modprobe -r nbd; "+moduleLine, func() {
		for range 8 {
			if serves.run(t, "twinbd", "attach", volumeName).Code == 0 {
				attached++
			}
			serves.run(t, "twinbd", "detach", volumeName)
		}
	})
	t.Logf("attached %d of 8 times", attached)
	serves.shell(t, moduleLine)
	serves.must(t, "twinbd", "attach", volumeName)
	serves.shell(t, "yes kept | head -c 65536 >/tmp/kept; dd if=/tmp/kept of=/dev/nbd0 bs=64K oflag=direct status=none; dd if=/dev/nbd0 bs=64K count=1 iflag=direct status=none | cmp - /tmp/kept")
	if said := serves.shell(t, `dmesg | grep -e "couldn't allocate config" -e 'cannot create duplicate filename' || true`); said != "" {
		t.Errorf("the kernel of %s:\n%s", serves.name, said)
	}
}

// TestAttachOnABusyMachine: a kernel that is slow to make workers may have one read all
// connections, which it then does not. Whoever takes the service over does not wait for
// the kernel's limit because of that.
func TestAttachOnABusyMachine(t *testing.T) {
	c := newCluster(t, options{size: 8 << 20, volume: deviceLine, pace: `{ heartbeat = "1s", timeout = "20s" }`})
	c.beta.shell(t, "for i in $(seq 16); do (while :; do :; done) & done")
	c.alpha.must(t, "twinbd", "switch", serviceName)
	// Each processor has a connection of its own.
	c.beta.shell(t, "for i in 0 1; do taskset -c $i dd if=/dev/nbd0 of=/dev/null bs=4096 count=1 skip=$i iflag=direct status=none; done")
	t.Logf("connections that were ended so that others are read: %d", c.beta.logged(t, "another is ended"))
	if n := c.beta.timeouts(t); n > 0 {
		t.Errorf("the kernel has waited too long for an answer %d times", n)
	}
}
