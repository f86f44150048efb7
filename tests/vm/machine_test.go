// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/drive"
	"github.com/twinbd/twinbd/tests/harness"
	"github.com/twinbd/twinbd/tests/vm/wire"
)

// setup is what a machine is made of.
type setup struct {
	name   string
	number int // of its addresses
	lan    *lan
	files  files
	drives []int64 // sizes in bytes: /dev/vdc and so on
}

// machine is a virtual one with a power switch. It may be switched on again.
type machine struct {
	setup
	dir    string
	image  image
	plugAt string // socket of the network
	thread *thread
	disks  []*drive.Drive

	// While there is power:
	qemu    *exec.Cmd
	off     chan struct{} // closed when QEMU has ended
	monitor *monitor
	console *session
}

// newMachine makes a machine, which is off.
func newMachine(t testing.TB, s setup) *machine {
	t.Helper()
	need(t)
	dir, err := os.MkdirTemp("", "vm") // not t.TempDir: a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{setup: s, dir: dir, image: bootImage(t), thread: newThread(t, plain)}
	t.Cleanup(func() { m.end(t) })
	m.plugAt = s.lan.socket(t, s.name)
	s.files.write(t, m.path("files.tar"))
	for i, size := range s.drives {
		m.disks = append(m.disks, drive.New(t, m.path(fmt.Sprintf("drive%d", i)), size))
	}
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// end is the end of the test: the power is cut, and nothing stays.
func (m *machine) end(t testing.TB) {
	if m.running() {
		m.cutPower(t, rand.New(rand.NewPCG(0, 0)), 0)
	}
	if t.Failed() {
		t.Logf("the last of the console of %s:\n%s", m.name, tail(m.path("console"), 200))
		if *keep != "" {
			t.Logf("keep the logs of %s: %v", m.name, m.keep())
		}
	}
	for _, d := range m.disks {
		d.Free(t)
	}
	if err := os.RemoveAll(m.dir); err != nil {
		t.Error(err)
	}
}

// keep copies what the machine has said.
func (m *machine) keep() error {
	logs, err := filepath.Glob(m.path("*.log"))
	for _, from := range append(logs, m.path("console")) {
		text, e := os.ReadFile(from)
		err = errors.Join(err, e, os.WriteFile(filepath.Join(*keep, m.name+"-"+filepath.Base(from)), text, 0o600))
	}
	return err
}

// boot switches the machine on, and returns when its init is ready, with the time
// that took.
func (m *machine) boot(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	m.powerOn(t)
	m.waitReady(t)
	return time.Since(began)
}

// powerOn switches the machine on.
func (m *machine) powerOn(t testing.TB) {
	t.Helper()
	if m.running() {
		t.Fatalf("%s is on", m.name)
	}
	for _, d := range m.disks {
		d.PowerOn(t)
	}
	// We listen and QEMU connects: nobody polls, and the end of a connection is the
	// end of the machine.
	control, serial := m.listen(t, "control"), m.listen(t, "serial")
	defer control.Close()
	defer serial.Close()
	said, err := os.Create(m.path("qemu.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	m.qemu = exec.Command("qemu-system-x86_64", m.arguments()...)
	m.qemu.Stdout, m.qemu.Stderr = said, said
	if err := m.thread.start(m.qemu); err != nil {
		t.Fatalf("start QEMU: %v", err)
	}
	off := make(chan struct{})
	m.off = off
	go func() {
		_ = m.qemu.Wait() // its log says why
		close(off)
		_ = control.Close() // so that nobody waits for who does not come
		_ = serial.Close()
	}()
	conn, err := control.Accept()
	if err == nil {
		m.monitor, err = newMonitor(conn)
	}
	if err == nil {
		conn, err = serial.Accept()
	}
	if err != nil {
		t.Fatalf("QEMU of %s: %v\n%s", m.name, err, tail(m.path("qemu.log"), 20))
	}
	m.console = newSession(m, conn)
}

func (m *machine) listen(t testing.TB, name string) net.Listener {
	t.Helper()
	listener, err := net.Listen("unix", m.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// waitReady waits until init answers.
func (m *machine) waitReady(t testing.TB) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-m.console.ready:
	case <-m.off:
		t.Fatalf("%s went off while it started:\n%s\n%s", m.name, tail(m.path("console"), 20), tail(m.path("qemu.log"), 20))
	case <-limit.C:
		// Where its processors are says what it waits for.
		t.Fatalf("%s did not start within %v:\n%s\n%s\n%s", m.name, patience, tail(m.path("console"), 20),
			m.monitor.show("info registers -a"), m.monitor.show("info lapic"))
	}
}

// arguments are QEMU's. The order of the disks is that of their names.
func (m *machine) arguments() []string {
	// One processor until all PCI devices are set up; the init brings up the other.
	// Machines have hung and reset themselves while addresses were given out, under
	// QEMU 7.2, whose processors run on threads of their own.
	line := fmt.Sprintf("maxcpus=1 console=ttyS0 loglevel=7 nokaslr panic=1 mitigations=off tsc=reliable random.trust_cpu=on guest.name=%s guest.address=10.66.0.%d/24", m.name, m.number)
	args := []string{
		"-machine", "q35,usb=off,graphics=off", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "640",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none",
		"-serial", "file:" + m.path("console"),
		"-kernel", m.image.kernel, "-initrd", m.image.initrd, "-append", line,
		"-device", "virtio-rng-pci",
		"-chardev", "socket,id=control,path=" + m.path("control"), "-mon", "chardev=control,mode=control",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=serial,path=" + m.path("serial"),
		"-device", "virtserialport,chardev=serial,name=" + wire.Port,
		"-netdev", "stream,id=lan,server=off,addr.type=unix,addr.path=" + m.plugAt,
		"-device", fmt.Sprintf("virtio-net-pci,romfile=,netdev=lan,mac=52:54:00:66:00:%02x", m.number),
	}
	disk := func(id, options string) {
		args = append(args, "-blockdev", "node-name="+id+","+options, "-device", "virtio-blk-pci,drive="+id)
	}
	disk("root", "driver=raw,read-only=on,file.driver=file,file.filename="+m.image.root)
	disk("files", "driver=raw,read-only=on,file.driver=file,file.filename="+m.path("files.tar"))
	for i, d := range m.disks {
		disk(fmt.Sprintf("drive%d", i), "driver=nbd,export="+drive.Export+",server.type=unix,server.path="+d.Socket)
	}
	return args
}

// running says whether the machine is on.
func (m *machine) running() bool {
	if m.off == nil {
		return false
	}
	select {
	case <-m.off:
		return false
	default:
		return true
	}
}

// cutPower ends the machine, and then its drives lose what they had not been told to
// flush, each sector with a probability. Nobody sees anything between the two: every
// word of the machine went through QEMU.
func (m *machine) cutPower(t testing.TB, random *rand.Rand, lose float64) (losses []drive.Loss) {
	t.Helper()
	if err := m.qemu.Process.Kill(); err != nil {
		t.Fatalf("%s was not on: %v\n%s", m.name, err, tail(m.path("qemu.log"), 20))
	}
	<-m.off
	for _, d := range m.disks {
		losses = append(losses, d.Cut(random, lose))
		d.PowerOff(t)
	}
	m.console.end()
	return losses
}

// pause stops the machine's processors, and with them its clocks.
func (m *machine) pause(t testing.TB) { m.control(t, "stop") }

// unpause lets them go on.
func (m *machine) unpause(t testing.TB) { m.control(t, "cont") }

func (m *machine) control(t testing.TB, command string) {
	t.Helper()
	if err := m.monitor.do(command); err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
}

// stop stops the machine as a whole; its clocks go on.
func (m *machine) stop(t testing.TB) {
	t.Helper()
	m.signal(t, syscall.SIGSTOP)
	if err := harness.AwaitStopped(m.qemu.Process.Pid); err != nil {
		t.Fatal(err)
	}
}

// goOn lets it go on.
func (m *machine) goOn(t testing.TB) { m.signal(t, syscall.SIGCONT) }

func (m *machine) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := m.qemu.Process.Signal(s); err != nil {
		t.Fatalf("signal %v to %s: %v", s, m.name, err)
	}
}
