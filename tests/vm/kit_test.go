// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/drive"
	"github.com/twinbd/twinbd/tests/harness"
)

// A machine runs commands, and says how they ended; after a power cut nothing is left
// of its root.
func TestCommands(t *testing.T) {
	m := newMachine(t, setup{name: "alpha", number: 1, lan: newLAN(t), files: files{
		"/opt/hello": {[]byte("#!/bin/sh\necho \"hello $1\"; echo trouble >&2; exit 7\n"), 0o755},
	}})
	t.Logf("booted in %v", m.boot(t))
	if out := m.run(t, "/opt/hello", "world"); out.Stdout != "hello world\n" || out.Stderr != "trouble\n" || out.Code != 7 {
		t.Errorf("a script of the test's: %s", out)
	}
	if out := m.run(t, "sh", "-c", "kill -9 $$"); out.Code != 128+9 {
		t.Errorf("a killed program: %s", out)
	}
	if out, err := m.start(t, nil, nil, "/nowhere").wait(patience); err == nil || out.Code != 127 {
		t.Errorf("a program that is not there: %s, %v", out, err)
	}
	if out, err := m.start(t, nil, []byte("in"), "cat").wait(patience); err != nil || out.Stdout != "in" {
		t.Errorf("a program's input: %s, %v", out, err)
	}
	m.shell(t, "sleep 1000 & echo lives on")
	if name := m.must(t, "uname", "-n"); name != "alpha\n" {
		t.Errorf("its name is %q", name)
	}
	began := time.Now()
	m.must(t, "true")
	t.Logf("/bin/true took %v", time.Since(began))
	m.shell(t, "echo mine >/etc/mine; sync")
	hung := m.start(t, nil, nil, "sleep", "1000")
	m.cutPower(t, rand.New(rand.NewPCG(1, 1)), 1)
	if _, err := hung.wait(patience); !errors.Is(err, errGone) {
		t.Errorf("what ran when the power was cut: %v", err)
	}
	m.boot(t)
	if out := m.run(t, "cat", "/etc/mine"); out.Code == 0 {
		t.Error("a write to the root has survived a power cut")
	}
}

// A cut takes what was not flushed, and only that; and when the drives are lucky,
// nothing. The end of QEMU alone would show neither.
func TestPowerCut(t *testing.T) {
	m := newMachine(t, setup{name: "alpha", number: 1, lan: newLAN(t), drives: []int64{8 << 20}})
	random := rand.New(rand.NewPCG(1, 1))
	d := m.disks[0]
	m.boot(t)
	// One MiB of ones that is flushed, then one of twos that is not, directly: they
	// are on the drive, and nowhere else.
	put := func(content string, at int, more string) string {
		return fmt.Sprintf("tr '\\0' '\\%s' </dev/zero | dd of=/dev/vdc bs=64K count=16 seek=%d iflag=fullblock oflag=direct conv=notrunc%s status=none\n", content, 16*at, more)
	}
	m.shell(t, put("1", 0, ",fsync")+put("2", 1, ""))
	if got := d.Volatile(8 << 20); got != 1<<20/drive.SectorSize {
		t.Errorf("the first sector in doubt is %d", got)
	}
	l := m.cutPower(t, random, 1)[0]
	if want := 1 << 20 / drive.SectorSize; l.Doubt != want || l.Lost != want {
		t.Errorf("%s sectors lost, not %d of %d", l, want, want)
	}
	m.boot(t)
	check := func(at int, content string) {
		t.Helper()
		others := m.shell(t, fmt.Sprintf("dd if=/dev/vdc bs=64K count=16 skip=%d status=none | tr -d '\\%s' | wc -c", 16*at, content))
		if others != "0\n" {
			t.Errorf("after the cut MiB %d has %s bytes that are not %s", at, strings.TrimSpace(others), content)
		}
	}
	check(0, "1")
	check(1, "0")
	m.shell(t, put("3", 2, ""))
	if l := m.cutPower(t, random, 0)[0]; l.Doubt == 0 || l.Lost != 0 {
		t.Errorf("lucky drives lost %s", l)
	}
	m.boot(t)
	check(2, "3")
}

// The two kinds of a freeze differ in what the machine knows of it.
func TestFreeze(t *testing.T) {
	const long = 4 * time.Second
	m := newMachine(t, setup{name: "alpha", number: 1, lan: newLAN(t)})
	m.boot(t)
	uptime := func() time.Duration {
		seconds, err := strconv.ParseFloat(strings.Fields(m.must(t, "cat", "/proc/uptime"))[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(seconds * float64(time.Second))
	}
	measure := func(freeze, thaw func(testing.TB)) (inside, outside time.Duration) {
		before, began := uptime(), time.Now()
		freeze(t)
		pending := m.start(t, nil, nil, "true")
		harness.Elapse(long)
		select {
		case <-pending.ended:
			t.Error("a frozen machine has answered")
		default:
		}
		thaw(t)
		if out, err := pending.wait(patience); err != nil || out.Code != 0 {
			t.Errorf("after the freeze: %s, %v", out, err)
		}
		return uptime() - before, time.Since(began)
	}
	inside, outside := measure(m.pause, m.unpause)
	t.Logf("processors stopped: %v inside, %v outside", inside, outside)
	if outside-inside < long-time.Second/2 {
		t.Errorf("processors stopped for %v, and inside %v of %v went by", long, inside, outside)
	}
	inside, outside = measure(m.stop, m.goOn)
	t.Logf("process stopped: %v inside, %v outside", inside, outside)
	if inside < long {
		t.Errorf("process stopped for %v, and inside only %v went by", long, inside)
	}
}

// Cables are cut one way, silently, and healed; a machine sees that neither in its
// carrier nor in what still comes the other way.
func TestCables(t *testing.T) {
	l := newLAN(t)
	a := newMachine(t, setup{name: "alpha", number: 1, lan: l})
	b := newMachine(t, setup{name: "beta", number: 2, lan: l})
	began := time.Now()
	a.powerOn(t)
	b.powerOn(t)
	a.waitReady(t)
	b.waitReady(t)
	t.Logf("two booted in %v", time.Since(began))
	// Neighbours known beforehand: so one way needs nothing of the other.
	for _, m := range []*machine{a, b} {
		m.shell(t, "for i in 1 2; do ip neigh replace 10.66.0.$i lladdr 52:54:00:66:00:0$i nud permanent dev eth0 || true; done")
	}
	const sent = 20
	passed := func(from, to *machine) int {
		before := datagrams(t, to)
		from.must(t, "bash", "-c", fmt.Sprintf("for ((i = 0; i < %d; i++)); do echo >/dev/udp/10.66.0.%d/9; done; true", sent, to.number))
		got := 0
		for range 5 { // a command takes longer than a datagram
			if got = datagrams(t, to) - before; got == sent {
				break
			}
		}
		return got
	}
	check := func(what string, forth, back int) {
		t.Helper()
		if x, y := passed(a, b), passed(b, a); x != forth || y != back {
			t.Errorf("%s: %d of %d datagrams passed to beta and %d back", what, x, sent, y)
		}
	}
	check("whole", sent, sent)
	l.cut("alpha", "beta", true)
	check("cut to beta", 0, sent)
	l.cut("alpha", "beta", false)
	l.cut("beta", "alpha", true)
	check("cut to alpha", sent, 0)
	l.isolate("alpha", true)
	check("isolated", 0, 0)
	if carrier := a.must(t, "cat", "/sys/class/net/eth0/carrier"); carrier != "1\n" {
		t.Errorf("the carrier of a cut cable is %q", carrier)
	}
	l.isolate("alpha", false)
	check("healed", sent, sent)
}

// datagrams is how many datagrams have come for which there was no port.
func datagrams(t testing.TB, m *machine) int {
	t.Helper()
	var heads, values []string
	for line := range strings.Lines(m.must(t, "cat", "/proc/net/snmp")) {
		if fields := strings.Fields(line); fields[0] == "Udp:" {
			heads, values = values, fields
		}
	}
	n, err := strconv.Atoi(values[slices.Index(heads, "NoPorts")])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
