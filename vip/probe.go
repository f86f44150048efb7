// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// A question is asked more than once, for a frame may be lost, and answered
// within the window, or nobody has the address as far as can be known.
var askAt = [...]time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond}

const askWindow = 150 * time.Millisecond

// Answer is who has an address, as heard on its interface from this node.
type Answer struct {
	Address  Address
	Hardware []net.HardwareAddr // each once; none: nobody answered
}

// Probe asks, from no address, who has the addresses: before they are taken,
// so that no two machines get the same one. It returns after 150 ms, or within
// 50 ms after the context ended, with an answer for each address that could be
// asked for, and an error that names the others. This node's own hardware does
// not count. Where a link does not carry, nobody answers.
func (m *Manager) Probe(ctx context.Context) ([]Answer, error) {
	return m.askAll(ctx, func(_ device, ip netip.Addr) netip.Addr { return unspecified(ip) })
}

// Resolve asks, from this node's own address in the subnet, who has the
// addresses, as any client would: the peer's check from outside that they lead
// to the node that serves. Otherwise it is as Probe. A node that has them
// itself hears only others.
func (m *Manager) Resolve(ctx context.Context) ([]Answer, error) {
	return m.askAll(ctx, func(d device, ip netip.Addr) netip.Addr { return sourceIn(d, ip, m.isVirtual) })
}

// Judge says what answers to Probe mean to a node that is about to take the
// addresses: that the peer still has one, which is a fact for the caller to
// weigh, or that a stranger has, which is an error that wraps ErrInUse and
// names the hardware. peer is what the peer said of itself (Hardware).
func Judge(answers []Answer, peer []net.HardwareAddr) (peerHas bool, err error) {
	var errs []error
	for _, answer := range answers {
		for _, hardware := range answer.Hardware {
			if contains(peer, hardware) {
				peerHas = true
				continue
			}
			errs = append(errs, &hintError{fmt.Errorf("virtual address %s: %w, %v", answer.Address.IP(), ErrInUse, hardware),
				"give that machine another address, or choose another `ip`"})
		}
	}
	return peerHas, errors.Join(errs...)
}

func contains(all []net.HardwareAddr, one net.HardwareAddr) bool {
	return slices.ContainsFunc(all, func(a net.HardwareAddr) bool { return bytes.Equal(a, one) })
}

// askAll asks for all addresses at the same time, each from the source that
// sourceOf gives.
func (m *Manager) askAll(ctx context.Context, sourceOf func(device, netip.Addr) netip.Addr) ([]Answer, error) {
	start := time.Now()
	devices, err := m.network.devices()
	if err != nil {
		return nil, fmt.Errorf("ask for virtual addresses: %w", err)
	}
	answers := make([]Answer, len(m.config.Addresses))
	errs := make([]error, len(m.config.Addresses))
	var asking sync.WaitGroup
	for i, a := range m.config.Addresses {
		asking.Go(func() {
			answers[i].Address = a
			p, err := locate(a, devices, m.isVirtual)
			if err == nil && p.device.speaks() {
				answers[i].Hardware, err = m.ask(ctx, p.device, a.IP(), sourceOf(p.device, a.IP()), start)
			}
			if err != nil {
				errs[i] = fmt.Errorf("ask for virtual address %s: %w", a.IP(), err)
			}
		})
	}
	asking.Wait()

	heard := make([]Answer, 0, len(answers))
	for i, answer := range answers {
		if errs[i] == nil {
			answer.Hardware = slices.DeleteFunc(answer.Hardware, func(h net.HardwareAddr) bool { return isOwn(devices, h) })
			heard = append(heard, answer)
		}
	}
	return heard, errors.Join(append(errs, ctx.Err())...)
}

// isOwn finds hardware among this node's: an echo of its own question, or the
// answer of another of its interfaces on the same network.
func isOwn(devices []device, hardware net.HardwareAddr) bool {
	return slices.ContainsFunc(devices, func(d device) bool { return bytes.Equal(d.hardware, hardware) })
}

// ask asks for one address and collects who claims it.
func (m *Manager) ask(ctx context.Context, d device, ip, source netip.Addr, start time.Time) ([]net.HardwareAddr, error) {
	frame, err := question(ip, d.hardware, source)
	if err != nil {
		return nil, err
	}
	s, err := m.network.open(d, protocolOf(ip))
	if err != nil {
		return nil, err
	}
	defer m.retire(s)

	var found []net.HardwareAddr
	for i := range askAt {
		if ctx.Err() != nil {
			break
		}
		if err := s.send(frame); err != nil {
			return nil, err
		}
		end := askWindow
		if i+1 < len(askAt) {
			end = askAt[i+1]
		}
		if found, err = listen(s, ip, start.Add(end), found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// listen adds to found whoever claims an address until the deadline.
func listen(s socket, ip netip.Addr, deadline time.Time, found []net.HardwareAddr) ([]net.HardwareAddr, error) {
	var buffer [256]byte // a claim is shorter
	for {
		n, err := s.receive(buffer[:], deadline)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		if hardware, ok := claim(buffer[:n], ip); ok && !contains(found, hardware) {
			found = append(found, hardware)
		}
	}
}
