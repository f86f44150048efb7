// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is a network namespace: a machine of the test, with one cable.
type space struct {
	name string
	fd   int // of the namespace, which lives as long as this
}

// newSpace makes a namespace, which ends with the test.
func newSpace(t *testing.T, name string) *space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	s := &space{name: name}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		s.fd = fd
		made <- err
	}()
	if err := <-made; err != nil {
		t.Skipf("network namespaces are not to be had: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(s.fd) })
	s.in(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return s
}

// enter runs f in the namespace and returns when it did.
func (s *space) enter(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("enter namespace %s: %v", s.name, err))
		}
		f()
	}()
	<-done
}

// in runs f in the namespace, and it must succeed.
func (s *space) in(t testing.TB, f func() error) {
	t.Helper()
	var err error
	s.enter(func() { err = f() })
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
}

// lan is a switch with the machines that were plugged in.
type lan struct{ bridge *space }

func newLAN(t *testing.T) lan {
	t.Helper()
	l := lan{newSpace(t, "switch")}
	l.bridge.in(t, func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(bridge)
	})
	return l
}

// plug makes a machine and connects its eth0, with the addresses 10.0.0.number
// and fd00::number.
func (l lan) plug(t *testing.T, name string, number byte) *space {
	t.Helper()
	s := newSpace(t, name)
	l.bridge.in(t, func() error {
		attrs := netlink.LinkAttrs{Name: name}
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(s.fd)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		port, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(port, bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(port)
	})
	s.in(t, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(eth0); err != nil {
			return err
		}
		for _, text := range []string{fmt.Sprintf("10.0.0.%d/24", number), fmt.Sprintf("fd00::%x/64", number)} {
			if err := s.add(text); err != nil {
				return err
			}
		}
		return nil
	})
	return s
}

// cable plugs a machine's cable in or pulls it, at the switch.
func (l lan) cable(t *testing.T, name string, in bool) {
	t.Helper()
	l.bridge.in(t, func() error {
		port, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if in {
			return netlink.LinkSetUp(port)
		}
		return netlink.LinkSetDown(port)
	})
}

// add gives eth0 a static address. To be called in the space.
func (s *space) add(text string) error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(text)
	if err != nil {
		return err
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	return netlink.AddrAdd(eth0, a)
}

// hardware is the hardware address of eth0.
func (s *space) hardware(t *testing.T) (hardware net.HardwareAddr) {
	t.Helper()
	s.in(t, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil {
			hardware = eth0.HardwareAddr
		}
		return err
	})
	return hardware
}

// has says whether eth0 has an address, and how.
func (s *space) has(t *testing.T, ip netip.Addr) (netip.Prefix, bool) {
	t.Helper()
	devices, err := within{s}.devices()
	if err != nil {
		t.Fatal(err)
	}
	eth0, _ := deviceNamed(devices, "eth0")
	return eth0.prefixOf(ip)
}

// neighbour is the hardware to which the machine sends what is for ip.
func (s *space) neighbour(t *testing.T, ip netip.Addr) (hardware net.HardwareAddr) {
	t.Helper()
	s.in(t, func() error {
		list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, n := range list {
			if known, _ := netip.AddrFromSlice(n.IP); known.Unmap() == ip {
				hardware = n.HardwareAddr
			}
		}
		return err
	})
	return hardware
}

// listen accepts connections and keeps them open and silent until the end of
// the test.
func (s *space) listen(t *testing.T, address string) {
	t.Helper()
	var l net.Listener
	s.in(t, func() (err error) {
		var plain net.ListenConfig
		plain.SetMultipathTCP(false)
		l, err = plain.Listen(t.Context(), "tcp", address)
		return err
	})
	accepted := make(chan net.Conn, 16)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		for c := range accepted {
			_ = c.Close()
		}
	})
}

// dial opens a connection from the machine, closed at the end of the test.
func (s *space) dial(t *testing.T, ip netip.Addr, port uint16) net.Conn {
	t.Helper()
	var c *net.TCPConn
	s.in(t, func() (err error) {
		c, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port)))
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// manager is one that lives in the namespace.
func (s *space) manager(t *testing.T, lifetime time.Duration, addresses ...Address) *Manager {
	t.Helper()
	m, err := newManager(Config{Addresses: addresses, Lifetime: lifetime, Log: slog.New(slog.DiscardHandler)}, within{s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// eventually waits for a condition, and says how long that took.
func eventually(t *testing.T, what string, limit time.Duration, condition func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		<-poll.C
	}
	return time.Since(start)
}

// within is the kernel in a namespace: each call is made from there.
type within struct{ space *space }

var _ network = within{}

func (w within) devices() (list []device, err error) {
	w.space.enter(func() { list, err = kernel{}.devices() })
	return list, err
}

func (w within) assign(d device, p netip.Prefix, lifetime time.Duration, onLink bool) (err error) {
	w.space.enter(func() { err = kernel{}.assign(d, p, lifetime, onLink) })
	return err
}

func (w within) remove(d device, p netip.Prefix) (err error) {
	w.space.enter(func() { err = kernel{}.remove(d, p) })
	return err
}

func (w within) reset(ips []netip.Addr) (n int, err error) {
	w.space.enter(func() { n, err = kernel{}.reset(ips) })
	return n, err
}

func (w within) open(d device, p protocol) (s socket, err error) {
	w.space.enter(func() { s, err = kernel{}.open(d, p) })
	return s, err
}

func (w within) changes() (news io.ReadCloser, err error) {
	w.space.enter(func() { news, err = kernel{}.changes() })
	return news, err
}

func (w within) uptime() time.Duration { return kernel{}.uptime() }
