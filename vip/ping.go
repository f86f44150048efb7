// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pingEvery is how often an echo request is repeated: a lost packet is no
// lost router.
const pingEvery = 200 * time.Millisecond

// Ping asks an address for an ICMP echo (RFC 792, 4443) until it answers, and
// returns nil, or until the context ends, and returns an error. Give the
// context a deadline. It takes the kernel's way to the address, through
// routers if need be. It opens an unprivileged socket where
// net.ipv4.ping_group_range allows it, else a raw one.
func Ping(ctx context.Context, ip netip.Addr) error {
	if err := ping(ctx, ip.Unmap()); err != nil {
		return fmt.Errorf("ping %s: %w", ip, err)
	}
	return nil
}

func ping(ctx context.Context, ip netip.Addr) error {
	e := echo{ip: ip, mark: make([]byte, 16)}
	_, _ = rand.Read(e.mark) // never fails
	conn, datagram, err := listenEcho(ip)
	if err != nil {
		return err
	}
	defer conn.Close()
	e.to = &net.IPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}
	if datagram {
		e.to = &net.UDPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}
	}
	forget := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer forget()

	var sendErr error
	for sequence := 0; ; sequence++ {
		if err := conn.SetReadDeadline(time.Now().Add(pingEvery)); err != nil {
			return err
		}
		if ctx.Err() != nil { // if it ends later, AfterFunc has the last word on the deadline
			return noAnswer(ctx, sendErr)
		}
		sendErr = e.ask(conn, sequence) // no route now, perhaps later
		if answered, err := e.await(conn); answered || err != nil {
			return err
		}
	}
}

func noAnswer(ctx context.Context, sendErr error) error {
	if sendErr != nil {
		return fmt.Errorf("no answer: %w: %w", ctx.Err(), sendErr)
	}
	return fmt.Errorf("no answer: %w", ctx.Err())
}

// listenEcho opens a socket for echoes. A datagram socket is the unprivileged
// kind: the kernel chooses the identifier and passes only its own replies.
func listenEcho(ip netip.Addr) (conn *icmp.PacketConn, datagram bool, err error) {
	unprivileged, raw, any := "udp4", "ip4:icmp", "0.0.0.0"
	if ip.Is6() {
		unprivileged, raw, any = "udp6", "ip6:ipv6-icmp", "::"
	}
	if conn, err = icmp.ListenPacket(unprivileged, any); err == nil {
		return conn, true, nil
	}
	if conn, err = icmp.ListenPacket(raw, any); err == nil {
		return conn, false, nil
	}
	if errors.Is(err, os.ErrPermission) {
		err = &hintError{err, "run as root or with CAP_NET_RAW, or widen net.ipv4.ping_group_range"}
	}
	return nil, false, err
}

// echo is one exchange with one address.
type echo struct {
	ip   netip.Addr
	to   net.Addr
	mark []byte // in each request and its reply, so that no other's is taken for ours
}

func (e echo) ask(conn *icmp.PacketConn, sequence int) error {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: sequence & 0xffff, Data: e.mark}}
	if e.ip.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil) // the kernel adds the checksum of IPv6
	if err != nil {
		return err
	}
	_, err = conn.WriteTo(b, e.to)
	return err
}

// await reads until the reply, or until the deadline: false.
func (e echo) await(conn *icmp.PacketConn) (bool, error) {
	var buffer [512]byte
	for {
		n, from, err := conn.ReadFrom(buffer[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if e.answers(buffer[:n], from) {
			return true, nil
		}
	}
}

func (e echo) answers(packet []byte, from net.Addr) bool {
	kind, number := icmp.Type(ipv4.ICMPTypeEchoReply), 1
	if e.ip.Is6() {
		kind, number = ipv6.ICMPTypeEchoReply, icmpv6
	}
	m, err := icmp.ParseMessage(number, packet)
	if err != nil || m.Type != kind {
		return false
	}
	reply, ok := m.Body.(*icmp.Echo)
	return ok && bytes.Equal(reply.Data, e.mark) && sender(from) == e.ip.WithZone("")
}

// sender is the address that a packet came from.
func sender(from net.Addr) netip.Addr {
	var b net.IP
	switch from := from.(type) {
	case *net.UDPAddr:
		b = from.IP
	case *net.IPAddr:
		b = from.IP
	}
	ip, _ := netip.AddrFromSlice(b)
	return ip.Unmap()
}
