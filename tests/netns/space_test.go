// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is a network namespace. A thread lives in it for as long as it lasts:
// processes that it starts are born there, and die with it.
type space struct {
	name string
	fd   int
	work chan func()
}

// newSpace makes a namespace, which ends with the test.
func newSpace(t testing.TB, name string) *space {
	t.Helper()
	s := &space{name: name, work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- err
		if err != nil {
			return
		}
		for f := range s.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		t.Skipf("network namespaces are not to be had: %v", err)
	}
	t.Cleanup(func() {
		close(s.work)
		_ = unix.Close(s.fd)
	})
	s.in(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return s
}

// do runs f on the namespace's thread. f waits for nothing.
func (s *space) do(f func() error) (err error) {
	done := make(chan struct{})
	s.work <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

// enter runs f in the namespace on a thread of its own, where it may wait.
func (s *space) enter(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", s.name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// in is do of what must succeed.
func (s *space) in(t testing.TB, f func() error) {
	t.Helper()
	if err := s.do(f); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
}

// address gives an interface a static address.
func (s *space) address(t testing.TB, device, text string) {
	t.Helper()
	s.in(t, func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		return netlink.AddrAdd(link, a)
	})
}

// has reports whether an interface of the machine has the address now.
func (s *space) has(t testing.TB, ip netip.Addr) (found bool) {
	t.Helper()
	s.in(t, func() error {
		all, err := netlink.AddrList(nil, netlink.FAMILY_V4)
		for _, a := range all {
			found = found || a.IP.Equal(ip.AsSlice())
		}
		return err
	})
	return found
}

// drop takes an address away, as a reboot would.
func (s *space) drop(t testing.TB, ip netip.Addr) {
	t.Helper()
	s.in(t, func() error {
		all, err := netlink.AddrList(nil, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, a := range all {
			if !a.IP.Equal(ip.AsSlice()) {
				continue
			}
			link, err := netlink.LinkByIndex(a.LinkIndex)
			if err != nil {
				return err
			}
			if err := netlink.AddrDel(link, &netlink.Addr{IPNet: a.IPNet}); err != nil {
				return err
			}
		}
		return nil
	})
}

// hardware is the hardware address of an interface.
func (s *space) hardware(t testing.TB, device string) (hardware net.HardwareAddr) {
	t.Helper()
	s.in(t, func() error {
		link, err := netlink.LinkByName(device)
		if err == nil {
			hardware = link.Attrs().HardwareAddr
		}
		return err
	})
	return hardware
}

// neighbour is the hardware to which the machine sends what is for ip.
func (s *space) neighbour(ip netip.Addr) (hardware net.HardwareAddr, err error) {
	err = s.do(func() error {
		list, err := netlink.NeighList(0, netlink.FAMILY_V4)
		for _, n := range list {
			if n.IP.Equal(ip.AsSlice()) {
				hardware = n.HardwareAddr
			}
		}
		return err
	})
	return hardware, err
}
