// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

var (
	ownMAC      = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x0a}
	otherMAC    = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x0e} // own, of another interface
	peerMAC     = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x0b}
	strangerMAC = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x0c}
)

var (
	virtual4 = Address{Prefix: netip.MustParsePrefix("10.0.0.100/24")}
	virtual6 = Address{Prefix: netip.MustParsePrefix("fd00::100/64")}
)

// sent is a frame and when it was sent.
type sent struct {
	at    time.Duration
	iface string
	frame []byte
}

// fakeNetwork is a kernel in memory, to be used within synctest: it has time,
// but addresses expire only when a test says so.
type fakeNetwork struct {
	begin time.Time

	mu       sync.Mutex
	list     []device
	sent     []sent
	log      []string                     // assign, remove, reset: in order
	lifetime map[netip.Addr]time.Duration // as last assigned
	fail     map[string]error             // by the line that would be logged
	answer   func(frame []byte) [][]byte  // what comes back at once
	skipped  time.Duration                // what uptime is ahead of the fake clock: a suspend
	open_    int                          // sockets not closed yet
	stir     chan struct{}                // for changes
}

func newFake() *fakeNetwork {
	return &fakeNetwork{
		begin: time.Now(),
		list: []device{
			{name: "lo", index: 1, silent: true, up: true, prefixes: prefixes("127.0.0.1/8", "::1/128")},
			{name: "eth0", index: 2, hardware: ownMAC, up: true, prefixes: prefixes("10.0.0.1/24", "fd00::1/64", "fe80::1/64")},
			{name: "eth1", index: 3, hardware: otherMAC, up: true, prefixes: prefixes("192.168.9.1/24")},
		},
		lifetime: make(map[netip.Addr]time.Duration),
		fail:     make(map[string]error),
		stir:     make(chan struct{}, 8),
	}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// manager is one over the fake, closed at the end of the test.
func (f *fakeNetwork) manager(t *testing.T, lifetime time.Duration, addresses ...Address) *Manager {
	t.Helper()
	m, err := newManager(Config{Addresses: addresses, Lifetime: lifetime, Log: slog.New(slog.DiscardHandler)}, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if f.open_ != 0 {
			t.Errorf("%d sockets left open", f.open_)
		}
	})
	return m
}

func (f *fakeNetwork) devices() ([]device, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["devices"]; err != nil {
		return nil, err
	}
	list := slices.Clone(f.list)
	for i := range list {
		list[i].prefixes = slices.Clone(list[i].prefixes)
	}
	return list, nil
}

// step logs what is done to the kernel, or returns the error that is set for it.
func (f *fakeNetwork) step(format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	if err := f.fail[line]; err != nil {
		return err
	}
	f.log = append(f.log, line)
	return nil
}

func (f *fakeNetwork) assign(d device, p netip.Prefix, lifetime time.Duration, onLink bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("assign %s %s", d.name, p); err != nil {
		return err
	}
	f.lifetime[p.Addr()] = lifetime
	f.edit(d.name, func(d *device) {
		if !slices.Contains(d.prefixes, p) {
			d.prefixes = append(d.prefixes, p)
		}
	})
	return nil
}

func (f *fakeNetwork) remove(d device, p netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step("remove %s %s", d.name, p); err != nil {
		return err
	}
	f.drop(d.name, p)
	return nil
}

func (f *fakeNetwork) drop(name string, p netip.Prefix) {
	f.edit(name, func(d *device) {
		d.prefixes = slices.DeleteFunc(d.prefixes, func(o netip.Prefix) bool { return o == p })
	})
}

func (f *fakeNetwork) edit(name string, change func(*device)) {
	for i := range f.list {
		if f.list[i].name == name {
			change(&f.list[i])
		}
	}
}

// change edits an interface from a test.
func (f *fakeNetwork) change(name string, change func(*device)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.edit(name, change)
}

func (f *fakeNetwork) reset(ips []netip.Addr) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return 1, f.step("reset %v", ips)
}

func (f *fakeNetwork) uptime() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.begin) + f.skipped
}

func (f *fakeNetwork) open(d device, p protocol) (socket, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["open "+d.name]; err != nil {
		return nil, err
	}
	f.open_++
	return &fakeSocket{f, d, make(chan []byte, 16)}, nil
}

func (f *fakeNetwork) changes() (io.ReadCloser, error) {
	return newsFake{f.stir, make(chan struct{})}, nil
}

// take returns what was sent so far and forgets it.
func (f *fakeNetwork) take() []sent {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.sent
	f.sent = nil
	return all
}

// steps returns what was done so far and forgets it.
func (f *fakeNetwork) steps() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.log
	f.log = nil
	return all
}

type fakeSocket struct {
	net    *fakeNetwork
	device device
	in     chan []byte
}

func (s *fakeSocket) send(frame []byte) error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if err := s.net.fail["send "+s.device.name]; err != nil {
		return err
	}
	s.net.sent = append(s.net.sent, sent{time.Since(s.net.begin), s.device.name, bytes.Clone(frame)})
	if s.net.answer != nil {
		for _, back := range s.net.answer(frame) {
			s.in <- back
		}
	}
	return nil
}

func (s *fakeSocket) receive(buffer []byte, deadline time.Time) (int, error) {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case frame := <-s.in:
		return copy(buffer, frame), nil
	case <-late.C:
		return 0, os.ErrDeadlineExceeded
	}
}

func (s *fakeSocket) close() error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.open_--
	return nil
}

type newsFake struct {
	stir   chan struct{}
	closed chan struct{}
}

func (n newsFake) Read([]byte) (int, error) {
	select {
	case <-n.stir:
		return 0, nil
	case <-n.closed:
		return 0, net.ErrClosed
	}
}

func (n newsFake) Close() error { close(n.closed); return nil }

// pass lets time pass within synctest.
func pass(d time.Duration) { <-time.After(d) }
