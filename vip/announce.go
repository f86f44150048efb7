// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// burst is when, after an address was taken, it is announced. A switch or a
// neighbour may be deaf for a moment (Linux ignores a change of what it learnt
// less than a second ago, and a port that came up forwards nothing at first),
// so the steps double.
var burst = [...]time.Duration{
	0,
	100 * time.Millisecond,
	200 * time.Millisecond,
	400 * time.Millisecond,
	800 * time.Millisecond,
	1600 * time.Millisecond,
	3200 * time.Millisecond,
}

// period is how often an address is announced after the burst, for ever: a
// neighbour that missed the burst, or believed another, is wrong for no longer.
const period = 10 * time.Second

// pauseAfter is how long to wait after so many announcements.
func pauseAfter(sent int) time.Duration {
	if sent < len(burst) {
		return burst[sent] - burst[sent-1]
	}
	return period
}

// announcer is a goroutine that announces at the right moments.
type announcer struct {
	send  func()
	again chan struct{} // capacity 1: one new burst can be pending
	quit  chan struct{}
	done  chan struct{}
}

func startAnnouncer(send func()) *announcer {
	a := &announcer{send, make(chan struct{}, 1), make(chan struct{}), make(chan struct{})}
	go a.run()
	return a
}

func (a *announcer) run() {
	defer close(a.done)
	next := time.NewTimer(burst[0])
	defer next.Stop()
	for sent := 0; ; {
		select {
		case <-a.quit:
			return
		case <-a.again:
			sent = 0
			next.Reset(burst[0])
		case <-next.C:
			a.send()
			sent++
			next.Reset(pauseAfter(sent))
		}
	}
}

// restart begins a new burst.
func (a *announcer) restart() {
	select {
	case a.again <- struct{}{}:
	default:
	}
}

// stop returns when nothing more is sent.
func (a *announcer) stop() {
	close(a.quit)
	<-a.done
}

// Announce begins a new burst: to be called when neighbours may have been
// misled, such as when the node stays primary after it lost contact, after a
// freeze or a change of the link. why goes to the log. Without anything held
// it does nothing.
func (m *Manager) Announce(why string) {
	m.steps.Lock()
	defer m.steps.Unlock()
	if m.steps.announcer != nil {
		m.log.Info("announce virtual addresses again", "why", why)
		m.steps.announcer.restart()
	}
}

// startAnnouncing is called with the steps locked.
func (m *Manager) startAnnouncing() {
	if m.steps.announcer != nil {
		m.steps.announcer.restart()
		return
	}
	told := make(map[netip.Addr]string) // what was last said of each, so that it is said once
	m.steps.announcer = startAnnouncer(func() { m.announceAll(told) })
}

// stopAnnouncing is called with the steps locked.
func (m *Manager) stopAnnouncing() {
	if m.steps.announcer != nil {
		m.steps.announcer.stop()
		m.steps.announcer = nil
	}
}

// announceAll sends one round of announcements. It looks first: a process that
// was frozen for a while must not draw traffic away from who has the address
// now.
func (m *Manager) announceAll(told map[netip.Addr]string) {
	h := m.held.Load()
	if h == nil {
		return
	}
	devices, err := m.network.devices()
	for _, p := range h.places {
		err := err
		if err == nil {
			err = m.announceOne(p, h.until, devices)
		}
		m.tell(told, p.IP(), err)
	}
}

func (m *Manager) announceOne(p place, until time.Duration, devices []device) error {
	d, ok := p.on(devices)
	if !ok {
		return fmt.Errorf("not on %s: %w", p.device.name, ErrLost)
	}
	if !d.speaks() {
		return nil
	}
	frames, err := announcements(p.IP(), d.hardware)
	if err != nil {
		return err
	}
	s, err := m.network.open(d, protocolOf(p.IP()))
	if err != nil {
		return err
	}
	defer m.retire(s)
	if late := m.network.uptime() - until; late > 0 { // last of all
		return fmt.Errorf("not renewed, %v too late: %w", late, ErrLost)
	}
	var errs []error
	for _, frame := range frames {
		errs = append(errs, s.send(frame))
	}
	return errors.Join(errs...)
}

// tell logs what became of an announcement when it differs from the last one.
func (m *Manager) tell(told map[netip.Addr]string, ip netip.Addr, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	before := told[ip]
	told[ip] = now
	switch {
	case before == now:
	case err != nil:
		m.log.Warn("virtual address not announced", "address", ip, "error", err)
	default:
		m.log.Info("virtual address announced again", "address", ip)
	}
}
