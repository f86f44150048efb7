// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

// How a volume shows in these tests: as a device, and what is on that, mounted.
const (
	deviceLine = `device = "/dev/nbd0"`
	mountLine  = deviceLine + "\n" + `mount = { at = "/data", type = "%s" }`
)

// makers make a file system of each kind.
var makers = map[string]string{
	"ext4": "mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0",
	"xfs":  "mkfs.xfs -q -K",
}

// newMounted is a pair with a file system on the volume, mounted where it is served.
// fill puts something on it first, below /data.
func newMounted(t testing.TB, o options, fill string) *cluster {
	t.Helper()
	service := o.service
	o.volume, o.service = deviceLine, ""
	c := newCluster(t, o)
	c.alpha.shell(t, makers[c.options.fs]+" /dev/nbd0; mount /dev/nbd0 /data; "+fill+"; umount /data")
	c.options.volume, c.options.service = fmt.Sprintf(mountLine, c.options.fs), service
	c.alpha.must(t, "twinbd", "stop", serviceName, "--all")
	for _, n := range c.nodes() {
		n.endDaemon(t)
		n.configure(t)
		n.serve(t)
	}
	for _, n := range c.nodes() {
		n.waitAnswer(t)
	}
	c.alpha.must(t, "twinbd", "start", serviceName, "--all")
	return c
}

// endDaemon asks the daemon to end, and waits.
func (n *node) endDaemon(t testing.TB) {
	t.Helper()
	n.daemon.signal(t, syscall.SIGTERM)
	if out, err := n.daemon.wait(patience); err != nil || out.Code != 0 {
		t.Fatalf("end the daemon of %s: %s, %v\n%s", n.name, out, err, tail(n.path("twinbd.log"), 20))
	}
}

// configure gives the node the cluster's configuration as it is now, also for when
// it has lost its power.
func (n *node) configure(t testing.TB) {
	t.Helper()
	text := []byte(n.cluster.config("/etc/twinbd/tls"))
	n.files[configFile] = file{text, 0o600}
	if out, err := n.machine.start(t, nil, text, "sh", "-c", "cat >"+configFile).wait(patience); err != nil || out.Code != 0 {
		t.Fatalf("configure %s: %s, %v", n.name, out, err)
	}
	n.files.write(t, n.path("files.tar"))
}

// waitServing waits until one node serves and the other follows.
func (c *cluster) waitServing(t testing.TB) (primary *node) {
	t.Helper()
	harness.WaitFor(t, "a pair", 2*patience, func() error {
		var errs []error
		for _, n := range c.nodes() {
			err := errors.Join(n.is(t, control.Primary), c.other(n).is(t, control.Secondary))
			if err == nil {
				primary = n
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return primary
}

// writersScript writes files of known content, past the page cache, until there is
// /tmp/stop; then it holds that each has what was written.
const writersScript = `
all=
for i in 1 2 3 4 5 6; do
  (
    until [ -e /tmp/stop ]; do
      yes "file $i" | dd of=/data/f$i bs=64K count=32 iflag=fullblock oflag=direct conv=fsync,notrunc status=none
    done
    yes "file $i" | head -c 2097152 | cmp - /data/f$i
  ) &
  all="$all $!"
done
for one in $all; do wait $one; done
`

// The daemon is replaced and killed while programs write, in a pair and then alone. A
// successor goes on with the kernel's connections, which sees nothing of it; one that
// was killed is back before anybody took over, and gives the kernel new ones for what
// it holds. Nobody sees an error. The peer returns, and a planned switch moves the file
// system with all that is on it.
func TestDaemonKilled(t *testing.T) {
	c := newMounted(t, options{size: 64 << 20, pace: `{ heartbeat = "1s", timeout = "20s" }`}, "true")
	serves := c.waitServing(t)
	next := c.other(serves)
	writers := serves.start(t, nil, nil, "sh", "-euc", writersScript)
	serves.replaceUnderLoad(t)
	c.waitPair(t, serves)
	serves.killUnderLoad(t)
	c.waitPair(t, serves)
	next.die(t)
	harness.WaitFor(t, serves.name+" to serve alone", patience, func() error { return serves.in(t, control.Alone) })
	serves.replaceUnderLoad(t)
	serves.killUnderLoad(t)
	serves.must(t, "touch", "/tmp/stop")
	if out, err := writers.wait(patience); err != nil || out.Code != 0 {
		t.Errorf("programs that wrote meanwhile: %s, %v", out, err)
	}
	next.comeBack(t)
	c.waitPair(t, serves)

	began := time.Now()
	serves.must(t, "twinbd", "switch", serviceName)
	c.waitPair(t, next)
	t.Logf("switched, a pair after %v", time.Since(began).Round(100*time.Millisecond))
	if mounts := serves.must(t, "cat", "/proc/mounts"); strings.Contains(mounts, "/data ") {
		t.Errorf("still mounted where the service was:\n%s", mounts)
	}
	next.shell(t, `for i in 1 2 3 4 5 6; do yes "file $i" | head -c 2097152 | cmp - /data/f$i; done`)
	c.checkFiles(t)
}

// The daemon stands still for a minute, while programs write, which is many times what
// the kernel waits for an answer: it gives every connection up, and holds what it has.
// Afterwards it gets new ones; what the old ones still held is void, so that nothing
// runs twice out of order: each program finds what it wrote last.
func TestLongFreeze(t *testing.T) {
	c := newMounted(t, options{size: 64 << 20, pace: `{ heartbeat = "1s", timeout = "120s" }`}, "true")
	serves := c.waitServing(t)
	writers := serves.start(t, nil, nil, "sh", "-euc", writersScript)
	serves.waitWritten(t)
	serves.daemon.signal(t, syscall.SIGSTOP)
	harness.Elapse(time.Minute)
	given := serves.shell(t, "dmesg | grep -c 'Connection timed out' || true")
	if strings.TrimSpace(given) == "0" {
		t.Error("the kernel has waited for a minute and given nothing up")
	}
	began := time.Now()
	serves.daemon.signal(t, syscall.SIGCONT)
	serves.waitWritten(t)
	t.Logf("after a minute, in which the kernel gave up %s requests, writes went on within %v",
		strings.TrimSpace(given), time.Since(began).Round(10*time.Millisecond))
	serves.must(t, "touch", "/tmp/stop")
	if out, err := writers.wait(patience); err != nil || out.Code != 0 {
		t.Errorf("programs that wrote meanwhile: %s, %v", out, err)
	}
	c.waitPair(t, serves)
	c.checkFiles(t)
}

// pauseScript writes a block after the other until there is /tmp/enough, and prints the
// longest time between two of them, in milliseconds.
const pauseScript = `
worst=0 last=$(date +%s%N)
until [ -e /tmp/enough ]; do
  dd if=/dev/zero of=/data/pause bs=4096 count=1 oflag=direct conv=notrunc status=none
  now=$(date +%s%N)
  [ $((now - last)) -le $worst ] || worst=$((now - last))
  last=$now
done
rm /tmp/enough
echo $((worst / 1000000))
`

// replaceUnderLoad has the daemon replaced while programs write. It stays the same
// process, and the kernel has nothing to say; unless the machine stands still for
// about as long as the kernel waits for an answer, which it may do under emulation.
func (n *node) replaceUnderLoad(t testing.TB) {
	t.Helper()
	n.waitWritten(t)
	said := n.shell(t, "dmesg | grep nbd || true")
	var still time.Duration
	for _, when := range []string{"nothing happens", "the daemon is replaced"} {
		pause := n.start(t, nil, nil, "sh", "-euc", pauseScript)
		harness.Elapse(2 * time.Second)
		if when != "nothing happens" {
			n.replaceDaemon(t)
			n.waitWritten(t)
		}
		n.must(t, "touch", "/tmp/enough")
		out, err := pause.wait(patience)
		if err != nil || out.Code != 0 {
			t.Fatalf("a program that wrote while %s: %s, %v", when, out, err)
		}
		longest, err := time.ParseDuration(strings.TrimSpace(out.Stdout) + "ms")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("while %s: %v between two writes at most", when, longest)
		still = max(still, longest)
	}
	now := n.shell(t, "dmesg | grep nbd || true")
	if now != said && still >= nbd.KernelTimeout*7/8 {
		t.Logf("the machine stood still for %v, and the kernel noticed", still)
	} else if now != said {
		t.Errorf("the kernel noticed:\n%s\nbefore:\n%s", now, said)
	}
}

// replaceDaemon has the node's daemon replaced, and waits for the successor.
func (n *node) replaceDaemon(t testing.TB) {
	t.Helper()
	before := n.logged(t, wentOn)
	n.daemon.signal(t, syscall.SIGHUP)
	harness.WaitFor(t, "a successor of the daemon of "+n.name, patience, func() error {
		if n.logged(t, wentOn) == before {
			return errors.New("none")
		}
		return nil
	})
}

// What the daemon's log says when a successor goes on, and when the kernel has said
// that a connection died.
const (
	wentOn = "goes on where the process before this one stopped"
	gaveUp = "the kernel has given a connection up"
)

// logged is how often the daemon's log says something.
func (n *node) logged(t testing.TB, what string) int {
	t.Helper()
	text, err := os.ReadFile(n.path("twinbd.log"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte(what))
}

// killUnderLoad kills the daemon while programs write, and starts it again.
func (n *node) killUnderLoad(t testing.TB) {
	t.Helper()
	n.waitWritten(t)
	harness.Elapse(time.Second) // some moment
	// Counted just before: what waits for a connection is not in flight any more.
	inflight := n.shell(t, "until read -r reads writes </sys/block/nbd0/inflight; [ $writes -gt 0 ]; do :; done; pkill -KILL -x twinbd; echo $writes")
	if out, err := n.daemon.wait(patience); err != nil || out.Code != 128+9 {
		t.Fatalf("kill the daemon: %s, %v", out, err)
	}
	t.Logf("%s writes were under way when the daemon was killed", strings.TrimSpace(inflight))
	began := time.Now()
	n.serve(t)
	n.waitWritten(t)
	t.Logf("after a new start writes went on within %v", time.Since(began).Round(10*time.Millisecond))
}

// in holds that the node is in a state, of whatever colour.
func (n *node) in(t testing.TB, state control.State) error {
	s, err := n.status(t)
	if err == nil && s.State != state {
		err = fmt.Errorf("%s is %s: %s", n.name, s.State, s.Reason)
	}
	return err
}

// waitWritten waits until the device has completed more writes.
func (n *node) waitWritten(t testing.TB) {
	t.Helper()
	const writes = "cut -c1- /sys/block/nbd0/stat | tr -s ' ' | cut -d' ' -f6"
	before := n.shell(t, writes)
	harness.WaitFor(t, "writes to "+n.name, patience, func() error {
		if now := n.shell(t, writes); now == before {
			return errors.New("none")
		}
		return nil
	})
}

// checkFiles stops the service, and holds that both drives have the same file system,
// without a fault.
func (c *cluster) checkFiles(t testing.TB) {
	t.Helper()
	for _, n := range c.nodes() {
		if s, err := n.status(t); err == nil && s.Role == "primary" {
			n.must(t, "twinbd", "stop", serviceName, "--all")
			break
		}
	}
	c.sameDrives(t)
	check := map[string][]string{"ext4": {"fsck.ext4", "-fn"}, "xfs": {"xfs_repair", "-n", "-f"}}[c.options.fs]
	for _, n := range c.nodes() {
		if out := harness.Run(t, append(check, n.path("drive0"))...); out.Code != 0 {
			t.Errorf("%s of the drive of %s: %s", check[0], n.name, out)
		}
	}
}
