// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/twinbd/twinbd/tests/harness"
)

// The kernel shows its netlink family for devices in its first network namespace only: in
// another one, devices are attached by ioctl, as before Linux 4.12.

// otherSpace is one, in a machine.
const otherSpace = "other"

// newSpaced is a machine with such a namespace.
func newSpaced(t testing.TB, content files) *machine {
	t.Helper()
	m := newMachine(t, setup{name: "alpha", number: 1, lan: newLAN(t), files: content})
	m.boot(t)
	m.shell(t, "ip netns add "+otherSpace+"; ip -n "+otherSpace+" link set lo up; mkdir -p /data")
	return m
}

// fileOf is a program of this machine's, for another.
func fileOf(t testing.TB, path string) file {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file{text, 0o755}
}

// The driver's own test, of package nbd, on a real device.
func TestIoctlDevice(t *testing.T) {
	need(t)
	program := filepath.Join(t.TempDir(), "nbd.test")
	build := exec.Command("go", "test", "-c", "-o", program, "../../nbd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the test of the driver: %v\n%s", err, out)
	}
	m := newSpaced(t, files{"/opt/nbd.test": fileOf(t, program)})
	out := m.run(t, "nsenter", "--net=/run/netns/"+otherSpace, "/opt/nbd.test", "-test.v", "-test.run=^TestIoctl", "-nbd.device=/dev/nbd1")
	t.Logf("in the machine:\n%s", out.Stdout)
	if out.Code != 0 || !strings.Contains(out.Stdout, "--- PASS: TestIoctlDevice") {
		t.Errorf("it failed: %s\n%s", out, m.shell(t, "dmesg | tail -n 40"))
	}
}

// ioctlConfig is a pair with its witness on one machine.
const ioctlConfig = `
cluster = "vm"
[node.alpha]
address = ["127.0.0.1:7800"]
state = "/var/lib/alpha"
run = "/run/alpha"
[node.beta]
address = ["127.0.0.1:7802"]
state = "/var/lib/beta"
run = "/run/beta"
[witness]
address = ["127.0.0.1:7801"]
[tls]
insecure = true
[service.db]
pace = %s
[service.db.volume.data]
size = "16MiB"
disk = "/srv/{node}.img"
device = { alpha = "/dev/nbd0", beta = "/dev/nbd1" }
`

// Daemons whose devices are attached by ioctl: they are used, moved with the service, and
// lost with their daemon. That is not replaced meanwhile, and says why.
func TestIoctlDaemon(t *testing.T) {
	need(t)
	m := newSpaced(t, files{
		configFile:              {fmt.Appendf(nil, ioctlConfig, defaultPace), 0o600},
		"/usr/local/lib/twinbd": fileOf(t, harness.Binary(t)),
		"/usr/local/bin/twinbd": {fmt.Appendf(nil, "#!/bin/sh\nexec nsenter --net=/run/netns/%s /usr/local/lib/twinbd --config %s \"$@\"\n", otherSpace, configFile), 0o755},
	})
	p := newIoctlPair(t, m)
	alpha := "twinbd --node alpha "
	m.shell(t, alpha+"prim db")
	p.wait(t, "alpha", "attached by ioctl")
	m.shell(t, alpha+"wait db PRIM --timeout 90s")
	m.shell(t, "mkfs.ext4 -q -E nodiscard /dev/nbd0; mount /dev/nbd0 /data")
	m.shell(t, "yes twice | head -c 4000000 >/tmp/much; cp /tmp/much /data; sync")
	if status := m.must(t, "twinbd", "--node", "alpha", "status"); !strings.Contains(status, "by ioctl") {
		t.Errorf("status does not say how it is attached:\n%s", status)
	}

	p.daemons["alpha"].signal(t, syscall.SIGHUP)
	p.wait(t, "alpha", "not replaced")
	p.wait(t, "alpha", "/dev/nbd0 was attached by ioctl, and would not outlive this process")
	m.shell(t, "echo 3 >/proc/sys/vm/drop_caches; cmp /tmp/much /data/much; umount /data")

	m.shell(t, alpha+"switch db")
	p.wait(t, "beta", "attached by ioctl")
	m.shell(t, "mount /dev/nbd1 /data; cmp /tmp/much /data/much")
	m.shell(t, "twinbd --node beta wait db PRIM --timeout 90s")

	p.daemons["beta"].signal(t, syscall.SIGKILL)
	out := m.run(t, "sh", "-c", "dd if=/tmp/much of=/data/more bs=64k oflag=direct conv=fsync status=none; ls /sys/block/nbd1/pid; umount /data && ! ls /sys/block/nbd1/pid")
	if !strings.Contains(out.Stderr, "Input/output error") && !strings.Contains(out.Stderr, "Read-only file system") || out.Code != 0 {
		t.Errorf("a write after the daemon was killed, and an unmount: %s", out)
	}
}

// ioctlPair is what runs in the machine.
type ioctlPair struct {
	machine *machine
	daemons map[string]*program
}

func newIoctlPair(t testing.TB, m *machine) *ioctlPair {
	t.Helper()
	p := &ioctlPair{machine: m, daemons: make(map[string]*program)}
	m.shell(t, "mkdir -p /var/lib/alpha /var/lib/beta /run/alpha /run/beta; twinbd --node alpha create --blank; twinbd --node beta create --blank")
	p.start(t, "witness", "twinbd", "witness", "--state", "/var/lib/witness")
	for _, name := range []string{"alpha", "beta"} {
		p.start(t, name, "twinbd", "--node", name, "serve")
	}
	for _, name := range []string{"alpha", "beta"} {
		harness.WaitFor(t, name+" to answer", patience, func() error {
			if out := m.run(t, "twinbd", "--node", name, "status"); out.Code != 0 {
				return errors.New(out.String())
			}
			return nil
		})
	}
	return p
}

// start starts one that logs.
func (p *ioctlPair) start(t testing.TB, name string, argv ...string) {
	t.Helper()
	log, err := os.Create(p.machine.path(name + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	one := p.machine.start(t, log, nil, argv...)
	p.daemons[name] = one
	go func() {
		<-one.ended
		_ = log.Close()
	}()
}

// wait waits until one has logged something.
func (p *ioctlPair) wait(t testing.TB, name, what string) {
	t.Helper()
	path := p.machine.path(name + ".log")
	harness.WaitFor(t, name+" to log: "+what, patience, func() error {
		text, err := os.ReadFile(path)
		if err == nil && !bytes.Contains(text, []byte(what)) {
			err = errors.New(tail(path, 10))
		}
		return err
	})
}
