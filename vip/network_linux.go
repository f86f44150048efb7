// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernel speaks to that of the calling thread's network namespace. It keeps
// nothing: each call opens its own netlink socket, which costs microseconds.
type kernel struct{}

var _ network = kernel{}

func (kernel) devices() ([]device, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := listAddresses()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	devices := make([]device, 0, len(interfaces))
	for _, i := range interfaces {
		const running = net.FlagUp | net.FlagRunning
		devices = append(devices, device{
			name:     i.Name,
			index:    i.Index,
			hardware: i.HardwareAddr,
			up:       i.Flags&running == running,
			silent:   i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0,
			prefixes: addresses[i.Index],
		})
	}
	return devices, nil
}

// listAddresses returns the addresses by the index of their interface.
func listAddresses() (map[int][]netip.Prefix, error) {
	var list []netlink.Addr
	for try := 0; ; try++ {
		var err error
		if list, err = netlink.AddrList(nil, netlink.FAMILY_ALL); err == nil {
			break
		}
		// Somebody changed the list while it was read.
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == 5 {
			return nil, err
		}
	}
	byIndex := make(map[int][]netip.Prefix)
	for _, a := range list {
		if a.IPNet == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(a.IP)
		if bits, _ := a.Mask.Size(); ok {
			byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return byIndex, nil
}

func (kernel) assign(d device, prefix netip.Prefix, lifetime time.Duration, onLink bool) error {
	seconds := int((lifetime + time.Second - 1) / time.Second)
	a := addressOn(d, prefix)
	a.ValidLft, a.PreferedLft = seconds, seconds
	if prefix.Addr().Is6() {
		// Probe has looked for duplicates, and quicker. Not preferred: by its
		// length it would be the source of the node's own connections, which
		// must not end when it leaves.
		a.PreferedLft = 0
		a.Flags = unix.IFA_F_NODAD
		if onLink {
			a.Flags |= unix.IFA_F_NOPREFIXROUTE
		}
	}
	err := netlink.AddrReplace(nil, a)
	if errors.Is(err, unix.EACCES) && prefix.Addr().Is6() {
		return &hintError{err, fmt.Sprintf("IPv6 is disabled there: sysctl net.ipv6.conf.%s.disable_ipv6=0", d.name)}
	}
	return permitted(err)
}

func (kernel) remove(d device, prefix netip.Prefix) error {
	err := netlink.AddrDel(nil, addressOn(d, prefix))
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return permitted(err)
}

func addressOn(d device, prefix netip.Prefix) *netlink.Addr {
	ip := prefix.Addr()
	return &netlink.Addr{
		IPNet:     &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(prefix.Bits(), ip.BitLen())},
		LinkIndex: d.index,
	}
}

// permitted adds what to do for an error of missing rights.
func permitted(err error) error {
	if errors.Is(err, unix.EPERM) {
		return &hintError{err, "run as root, or with CAP_NET_ADMIN and CAP_NET_RAW"}
	}
	return err
}

func (kernel) changes() (io.ReadCloser, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("subscribe to changes of links: %w", err)
	}
	return news{os.NewFile(uintptr(fd), "netlink")}, nil
}

// news is a netlink socket that multicasts changes.
type news struct{ *os.File }

// Read takes one message. That messages were lost is news too.
func (n news) Read(buffer []byte) (int, error) {
	count, err := n.File.Read(buffer)
	if errors.Is(err, unix.ENOBUFS) {
		return 0, nil
	}
	return count, err
}

func (kernel) uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("read CLOCK_BOOTTIME: %v", err)) // it has been there since Linux 2.6.39
	}
	return time.Duration(t.Nano())
}
