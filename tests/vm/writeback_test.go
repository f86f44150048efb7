// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// keepDirty makes the kernel write no page before it is told to.
const keepDirty = "cd /proc/sys/vm; echo 90 >dirty_ratio; echo 80 >dirty_background_ratio; echo 0 >dirty_writeback_centisecs; "

// A program writes to the page cache of a primary that is cut off; when the other
// serves already, the kernel is told to write that back. It reaches neither disk
// (case 34): at first the old primary serves nobody, and when it hears that it has
// been replaced, the device fails what waits.
func TestLateWriteback(t *testing.T) {
	c := newMounted(t, options{}, "true")
	old := c.waitServing(t)
	next := c.other(old)
	old.shell(t, keepDirty+"yes kept | head -c 1048576 >/data/kept; sync -f /data/kept")
	old.cutOff(t)
	harness.WaitFor(t, next.name+" to serve", 2*patience, func() error { return next.is(t, control.Alone) })

	const late = "written too late"
	out := old.start(t, nil, nil, "sh", "-c", fmt.Sprintf("yes '%s' | head -c 2097152 >/data/late; grep Dirty: /proc/meminfo; sync", late))
	harness.WaitFor(t, "the kernel of "+old.name+" to write back", patience, func() error {
		// Not what is in flight: that is nothing as soon as every connection has been given up.
		if under := strings.Fields(old.must(t, "grep", "Writeback:", "/proc/meminfo")); under[1] == "0" {
			return fmt.Errorf("nothing is being written back")
		}
		return nil
	})
	next.shell(t, "yes next | head -c 1048576 >/data/next; sync -f /data/next")
	old.rejoin(t)
	c.waitPair(t, next)
	if result, err := out.wait(patience); err != nil {
		t.Errorf("what wrote too late never ends: %v", err)
	} else {
		t.Logf("what wrote too late ended with code %d: %s", result.Code, strings.TrimSpace(result.Stdout))
	}
	next.shell(t, "yes kept | head -c 1048576 | cmp - /data/kept; yes next | head -c 1048576 | cmp - /data/next; [ ! -e /data/late ]")
	c.checkFiles(t)
	for _, n := range c.nodes() {
		if bytes.Contains(n.disks[0].Data[:c.options.size], []byte(late)) {
			t.Errorf("what was written too late is on the drive of %s", n.name)
		}
	}
}

// events are those of the node's process, from the one after a number.
func (n *node) events(t testing.TB, since uint64) (list []control.Event) {
	t.Helper()
	text := n.must(t, "twinbd", "events", serviceName, "--json", "--since", fmt.Sprint(since))
	for d := json.NewDecoder(strings.NewReader(text)); d.More(); {
		var e control.Event
		if err := d.Decode(&e); err != nil {
			t.Fatalf("events of %s: %v\n%s", n.name, err, text)
		}
		list = append(list, e)
	}
	return list
}

// Programs write what is most of the memory that another has left, four at a time:
// pages can only be had by writing some back through the daemon (case 36).
// It is protected from waiting for them, from being paged out, and from being killed;
// everything is written, and neither node loses the other.
func TestMemoryPressure(t *testing.T) {
	c := newMounted(t, options{size: 64 << 20, pace: `{ heartbeat = "1s", timeout = "20s" }`}, "true")
	serves := c.waitServing(t)
	daemon := strings.TrimSpace(serves.must(t, "pidof", "/usr/local/lib/twinbd"))
	serves.shell(t, fmt.Sprintf(`
cd /proc/%s
[ "$(cat oom_score_adj)" = -1000 ]
[ "$(sed -n 's/^VmLck:[^0-9]*\([0-9]*\).*/\1/p' status)" -gt 0 ]
for thread in task/*/stat; do
  set -- $(sed 's/.*) //' $thread)
  [ $(($7 & 0x80000)) != 0 ]
done`, daemon))

	// All but little of the memory is taken, and cannot be given back.
	free := serves.shell(t, `
mkdir -p /hog; mount -t tmpfs -o size=90% hog /hog
free=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)
head -c $(((free - 65536) * 1024)) /dev/zero >/hog/all
sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo`)
	t.Logf("%s KiB of memory are left", strings.TrimSpace(free))
	before := serves.events(t, 0)
	began := time.Now()
	serves.shell(t, `
all=
for i in 1 2 3 4; do
  (yes "file $i" | head -c 12582912 >/data/f$i) &
  all="$all $!"
done
for one in $all; do wait $one; done
sync -f /data`)
	t.Logf("48 MiB were written in %v", time.Since(began).Round(100*time.Millisecond))
	if now := strings.TrimSpace(serves.must(t, "pidof", "/usr/local/lib/twinbd")); now != daemon {
		t.Errorf("the daemon was process %s, and is %s", daemon, now)
	}
	for _, e := range serves.events(t, before[len(before)-1].Sequence) {
		if e.Kind == "state" && e.Old == string(control.Primary) {
			t.Errorf("%s left the pair: %s", serves.name, e.Reason)
		}
	}
	serves.shell(t, `rm /hog/all; for i in 1 2 3 4; do yes "file $i" | head -c 12582912 | cmp - /data/f$i; done`)
	c.checkFiles(t)
}
