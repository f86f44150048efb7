// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config says which addresses a Manager moves.
type Config struct {
	// Addresses may be none: such a Manager does nothing.
	Addresses []Address

	// Lifetime is how long an address stays after it was last taken or
	// renewed: the service's timeout. The kernel counts whole seconds, so it
	// keeps the address for this time rounded up to the next one, and up to a
	// second longer. More than zero, at most MaxLifetime.
	Lifetime time.Duration

	Log *slog.Logger
}

// MaxLifetime bounds Config.Lifetime: what lasts longer protects nobody.
const MaxLifetime = 24 * time.Hour

// Manager moves the virtual addresses of one service on this node. Its methods
// may be called at the same time; Take, Renew, Leave and Close wait for each
// other. Only Probe, Resolve and Watch block for longer than the kernel takes
// to answer.
//
// It owns one goroutine while it holds addresses, the announcer, and some that
// end sockets.
type Manager struct {
	config  Config
	network network
	log     *slog.Logger

	steps struct {
		sync.Mutex // for a whole Take, Renew, Leave, Close
		announcer  *announcer
		closed     bool
	}

	// held is what the last Take or Renew has left in the kernel, nil when
	// nothing is held. What it points to never changes.
	held atomic.Pointer[holding]

	background sync.WaitGroup // sockets being closed
}

// holding is what this node has, and until when it may act on it.
type holding struct {
	places []place
	until  time.Duration // uptime
}

// New checks the configuration. It asks and changes nothing in the kernel:
// interfaces may come later.
func New(c Config) (*Manager, error) {
	if runtime.GOOS != "linux" && len(c.Addresses) > 0 {
		return nil, &hintError{fmt.Errorf("virtual address %s: not supported on %s", c.Addresses[0], runtime.GOOS), "run the nodes on Linux, or leave out `ip`"}
	}
	return newManager(c, kernel{})
}

func newManager(c Config, n network) (*Manager, error) {
	if c.Lifetime <= 0 || c.Lifetime > MaxLifetime {
		return nil, &hintError{fmt.Errorf("lifetime %v of virtual addresses: out of range", c.Lifetime), fmt.Sprintf("more than 0, at most %v", MaxLifetime)}
	}
	c.Addresses = slices.Clone(c.Addresses)
	seen := make(map[netip.Addr]bool)
	for _, a := range c.Addresses {
		if err := a.validate(); err != nil {
			return nil, err
		}
		if seen[a.IP()] {
			return nil, &hintError{fmt.Errorf("virtual address %s: given twice", a.IP()), "leave one out"}
		}
		seen[a.IP()] = true
	}
	return &Manager{config: c, network: n, log: c.Log}, nil
}

// Take adds the addresses to their interfaces, or renews those that are there
// already, and announces them: a burst at once, then for ever, until Leave or
// Close. An address that cannot be taken does not keep the others from it; the
// error names each. Call Probe first.
func (m *Manager) Take() error {
	m.steps.Lock()
	defer m.steps.Unlock()
	if m.steps.closed {
		return errors.New("take virtual addresses: closed")
	}
	if len(m.config.Addresses) == 0 {
		return nil
	}
	asked := m.network.uptime() // before the kernel's clock starts
	devices, err := m.network.devices()
	if err != nil {
		return fmt.Errorf("take virtual addresses: %w", err)
	}
	h := &holding{until: asked + m.config.Lifetime}
	var errs []error
	for _, a := range m.config.Addresses {
		p, err := m.takeOne(a, devices)
		if err != nil {
			errs = append(errs, fmt.Errorf("take virtual address %s: %w", a.IP(), err))
			continue
		}
		h.places = append(h.places, p)
		m.log.Info("virtual address taken", "address", a.IP(), "interface", p.device.name)
	}
	if len(h.places) > 0 {
		m.held.Store(h)
		m.startAnnouncing()
	}
	return errors.Join(errs...)
}

func (m *Manager) takeOne(a Address, devices []device) (place, error) {
	p, err := locate(a, devices, m.isVirtual)
	if err != nil {
		return p, err
	}
	for _, d := range devices {
		if there, ok := d.prefixOf(a.IP()); ok && d.index != p.device.index {
			return p, &hintError{fmt.Errorf("it is on this node's %s, and belongs on %s", d.name, p.device.name),
				fmt.Sprintf("ip addr del %s dev %s", there, d.name)}
		}
	}
	if err := m.network.assign(p.device, p.prefix, m.config.Lifetime, p.onLink); err != nil {
		return p, fmt.Errorf("add it to %s: %w", p.device.name, err)
	}
	return p, nil
}

// Renew gives what is held another Lifetime; to be called at least every third
// of it, while the node may serve. Without anything held it does nothing.
//
// It brings nothing back. An address that is gone, or whose time has run out
// since it was last renewed, is ErrLost: only the caller knows whether this
// node may still have it, and if so calls Take, which also announces it.
func (m *Manager) Renew() error {
	m.steps.Lock()
	defer m.steps.Unlock()
	h := m.held.Load()
	if h == nil {
		return nil
	}
	asked := m.network.uptime()
	if asked > h.until {
		return fmt.Errorf("renew virtual addresses: %v too late: %w", asked-h.until, ErrLost)
	}
	devices, err := m.network.devices()
	if err != nil {
		return fmt.Errorf("renew virtual addresses: %w", err)
	}
	var errs []error
	for _, p := range h.places {
		if err := m.renewOne(p, devices); err != nil {
			errs = append(errs, fmt.Errorf("renew virtual address %s: %w", p.IP(), err))
		}
	}
	if len(errs) < len(h.places) {
		m.held.Store(&holding{places: h.places, until: asked + m.config.Lifetime})
	}
	return errors.Join(errs...)
}

func (m *Manager) renewOne(p place, devices []device) error {
	d, ok := p.on(devices)
	if !ok {
		return fmt.Errorf("not on %s: %w", p.device.name, ErrLost)
	}
	return m.network.assign(d, p.prefix, m.config.Lifetime, p.onLink)
}

// on finds the interface on which an address is now, if it is still there.
func (p place) on(devices []device) (device, bool) {
	d, ok := deviceNamed(devices, p.device.name)
	if !ok {
		return d, false
	}
	there, ok := d.prefixOf(p.IP())
	return d, ok && there == p.prefix
}

// Departure is what Leave did.
type Departure struct {
	Removed []netip.Addr // that this node had

	// Connections is how many TCP connections to the addresses were reset.
	Connections int

	// Unreset is why not all were, nil if they were. It wraps
	// errors.ErrUnsupported where the kernel cannot. Clients then notice by
	// their own time limits, or by the new owner's answer to what they send.
	Unreset error
}

// Leave takes the addresses off this node, wherever they are on it, whether or
// not this Manager put them there, and resets the connections to them. When it
// returns nothing more is announced. With an error an address may still be
// there; it is right to call it again.
func (m *Manager) Leave() (Departure, error) {
	m.steps.Lock()
	defer m.steps.Unlock()
	m.stopAnnouncing()
	m.held.Store(nil)
	if len(m.config.Addresses) == 0 {
		return Departure{}, nil
	}
	// Before, so that the clients hear of it: the kernel sends nothing from an
	// address that it does not have. And after, for those who came in between.
	before, beforeErr := m.resetConnections()
	removed, err := m.removeAll()
	after, afterErr := m.resetConnections()

	left := Departure{Removed: removed, Connections: before + after, Unreset: afterErr}
	if left.Unreset == nil {
		left.Unreset = beforeErr
	}
	if len(removed) > 0 || left.Connections > 0 {
		m.log.Info("virtual addresses left", "removed", removed, "connections", left.Connections)
	}
	return left, err
}

// Lend ends the connections to the addresses and keeps these, unannounced and
// never renewed, until Leave follows or their lifetime ends. It is for a handover:
// who connects before the next owner is there is answered by this node, by a
// refusal at worst. Once the address is gone it would be answered by nobody, and
// a client's kernel says so, or tries again, only after a second.
func (m *Manager) Lend() error {
	m.steps.Lock()
	defer m.steps.Unlock()
	m.stopAnnouncing()
	m.held.Store(nil)
	if len(m.config.Addresses) == 0 {
		return nil
	}
	_, err := m.resetConnections()
	return err
}

func (m *Manager) resetConnections() (int, error) {
	var ips []netip.Addr
	for _, a := range m.config.Addresses {
		ips = append(ips, a.IP())
	}
	n, err := m.network.reset(ips)
	if err != nil {
		err = fmt.Errorf("reset connections to virtual addresses: %w", err)
	}
	return n, err
}

func (m *Manager) removeAll() (removed []netip.Addr, err error) {
	devices, err := m.network.devices()
	if err != nil {
		return nil, fmt.Errorf("remove virtual addresses: %w", err)
	}
	var errs []error
	for _, d := range devices {
		for _, p := range d.prefixes {
			if !m.isVirtual(p.Addr()) {
				continue
			}
			if err := m.network.remove(d, p); err != nil {
				errs = append(errs, fmt.Errorf("remove virtual address %s from %s: %w", p, d.name, err))
				continue
			}
			removed = append(removed, p.Addr())
		}
	}
	return removed, errors.Join(errs...)
}

// Held returns the addresses that were taken and not left. Whether one has
// been lost since is what Renew says.
func (m *Manager) Held() []Address {
	h := m.held.Load()
	if h == nil {
		return nil
	}
	var held []Address
	for _, p := range h.places {
		held = append(held, p.Address)
	}
	return held
}

// Close ends the Manager's goroutines and leaves the addresses where they are:
// their lifetime ends by itself, or a successor renews them. Call Leave before
// to have them gone. Probe and Resolve must have ended. A second Close does
// nothing.
func (m *Manager) Close() {
	m.steps.Lock()
	defer m.steps.Unlock()
	m.steps.closed = true
	m.stopAnnouncing()
	m.background.Wait()
}

// isVirtual says whether an address is one of those that move.
func (m *Manager) isVirtual(ip netip.Addr) bool {
	return slices.ContainsFunc(m.config.Addresses, func(a Address) bool { return a.IP() == ip })
}

// retire closes a socket behind the caller's back, who has better things to do
// than to wait for it.
func (m *Manager) retire(s socket) {
	m.background.Go(func() {
		if err := s.close(); err != nil {
			m.log.Warn("close packet socket", "error", err)
		}
	})
}
