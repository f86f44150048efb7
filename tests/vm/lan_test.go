// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	longestFrame = 1 << 17 // bytes
	portQueue    = 1024    // frames that wait for a machine; a frozen one loses the rest
)

type hardware [6]byte

// lan is a switch that learns who is where, with cables that can be cut.
type lan struct {
	dir string

	mu    sync.Mutex
	ports map[string]*port
	where map[hardware]*port
	cuts  map[[2]string]bool // from, to
}

// port is a machine's at the switch.
type port struct {
	name   string
	frames chan []byte // to the machine
}

func newLAN(t testing.TB) *lan {
	t.Helper()
	dir, err := os.MkdirTemp("", "lan")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &lan{dir: dir, ports: make(map[string]*port), where: make(map[hardware]*port), cuts: make(map[[2]string]bool)}
}

// socket is where QEMU plugs a machine in. It may come again and again.
func (l *lan) socket(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(l.dir, name)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(name, conn)
		}
	}()
	return path
}

// serve is the port of a machine for as long as that has power. A frame comes behind
// its length.
func (l *lan) serve(name string, conn net.Conn) {
	p := l.plug(name)
	done := make(chan struct{})
	go func() {
		out := bufio.NewWriterSize(conn, 256<<10)
		for {
			select {
			case frame := <-p.frames:
				_ = binary.Write(out, binary.BigEndian, uint32(len(frame)))
				_, _ = out.Write(frame)
				if len(p.frames) == 0 {
					_ = out.Flush() // the reader sees the end
				}
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 256<<10)
	for {
		var length uint32
		if err := binary.Read(in, binary.BigEndian, &length); err != nil || length > longestFrame {
			return
		}
		frame := make([]byte, length)
		if _, err := io.ReadFull(in, frame); err != nil {
			return
		}
		l.forward(p, frame)
	}
}

func (l *lan) plug(name string) *port {
	p := &port{name: name, frames: make(chan []byte, portQueue)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports[name] = p
	return p
}

// forward sends a frame to who has its address, or to all.
func (l *lan) forward(from *port, frame []byte) {
	if len(frame) < 14 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ports[from.name] != from {
		return // what a machine sent before its power was cut
	}
	l.where[hardware(frame[6:12])] = from
	if to := l.where[hardware(frame[:6])]; to != nil && frame[0]&1 == 0 {
		l.send(from, to, frame)
		return
	}
	for _, to := range l.ports {
		l.send(from, to, frame)
	}
}

func (l *lan) send(from, to *port, frame []byte) {
	if from.name == to.name || l.cuts[[2]string{from.name, to.name}] {
		return
	}
	if p := l.ports[to.name]; p != nil {
		select {
		case p.frames <- frame:
		default:
		}
	}
}

// cut drops what goes from one machine to another, or no longer.
func (l *lan) cut(from, to string, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cuts[[2]string{from, to}] = cut
}

// isolate cuts a machine off from all others, both ways, or no longer.
func (l *lan) isolate(name string, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other := range l.ports {
		l.cuts[[2]string{name, other}] = cut
		l.cuts[[2]string{other, name}] = cut
	}
}

// connect plugs a thread's network namespace in, with an address.
func (l *lan) connect(t testing.TB, space *thread, name, address string) {
	t.Helper()
	var tap *os.File
	err := space.do(func() (err error) {
		if tap, err = openTap(); err != nil {
			return err
		}
		for _, device := range []string{"lo", tapName} {
			link, err := netlink.LinkByName(device)
			if err == nil {
				err = netlink.LinkSetUp(link)
			}
			if err != nil {
				return err
			}
			if device == tapName {
				a, err := netlink.ParseAddr(address)
				return errors.Join(err, netlink.AddrAdd(link, a))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("make a network interface: %v", err)
	}
	p := l.plug(name)
	done := make(chan struct{})
	t.Cleanup(func() {
		close(done)
		_ = tap.Close()
	})
	go func() {
		for {
			select {
			case frame := <-p.frames:
				_, _ = tap.Write(frame) // not taken: lost, as on any network
			case <-done:
				return
			}
		}
	}()
	go func() {
		for {
			frame := make([]byte, longestFrame)
			n, err := tap.Read(frame)
			if err != nil {
				return
			}
			l.forward(p, frame[:n:n])
		}
	}()
}

const tapName = "tap0"

// openTap makes an interface whose frames are read and written.
func openTap() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(tapName)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "tap"), nil // only now: a poller knows it from here on
}
