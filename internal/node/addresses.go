// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/application"
	"github.com/twinbd/twinbd/vip"
)

// addresses keeps the virtual addresses where they belong: here while this node
// serves and its lease holds. One goroutine (run) takes and removes them, so
// that the last word counts; whoever wants something says so and pokes it.
type addresses struct {
	service *service
	vip     *vip.Manager

	mu       sync.Mutex
	up       bool // the steps of the application want them
	hidden   bool // the lease has run out
	left     bool // those that an earlier process has left stay, until it is clear who serves
	tried    chan struct{}
	outcome  error
	probed   time.Time     // when nobody had them
	lent     time.Time     // when the peer last served, and so had them
	taken    bool          // they are here, as far as was tried
	minding  chan struct{} // closed when it ends; nil: they are not minded for the peer
	problem  string        // what somebody should look at
	detached bool          // an interface that they belong on does not carry

	wake chan struct{}
}

// addressLimit bounds taking and removing them.
const addressLimit = 5 * time.Second

// probeLasts is for how long it counts that nobody had the addresses.
const probeLasts = 3 * time.Second

// mindLimit is for how long addresses are minded for a peer that takes the
// service over. Within a timeout they are its own, or nobody's.
func (a *addresses) mindLimit() time.Duration {
	return min(a.service.cfg.Pace.Timeout/2, time.Second)
}

// checkEvery is how often a secondary looks from outside to whom the addresses
// lead.
const checkEvery = 10 * time.Second

func newAddresses(s *service) (*addresses, error) {
	var list []vip.Address
	for _, ip := range s.cfg.IP {
		list = append(list, vip.Address{Prefix: ip.Prefix, Interface: ip.Interface})
	}
	m, err := vip.New(vip.Config{Addresses: list, Lifetime: s.cfg.Pace.Timeout, Log: s.log})
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", s.cfg.Name, err)
	}
	return &addresses{service: s, vip: m, wake: make(chan struct{}, 1)}, nil
}

// run does what is wanted, renews it, and watches the links.
func (a *addresses) run(ctx context.Context) error {
	if len(a.service.cfg.IP) == 0 {
		<-ctx.Done()
		return nil
	}
	defer a.vip.Close()
	defer a.vip.Leave()
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		if err := a.vip.Watch(ctx, a.linkChanged); err != nil {
			a.service.log.Warn("links are not watched", "error", err)
		}
	})
	watching.Go(func() { a.watchFromOutside(ctx) })
	renew := time.NewTicker(a.service.cfg.Pace.Timeout / 4)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
			a.settle()
		case <-renew.C:
			a.renew()
		}
	}
}

// watchFromOutside checks again and again. It has a goroutine of its own, for
// nobody may wait for the addresses as long as it waits for answers.
func (a *addresses) watchFromOutside(ctx context.Context) {
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
			a.checkFromOutside(ctx)
		}
	}
}

func (a *addresses) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *addresses) wanted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.up && !a.hidden
}

// settle takes the addresses, or removes them, as is wanted last.
func (a *addresses) settle() {
	a.mu.Lock()
	wanted, minding, left, tried := a.up && !a.hidden, a.minding != nil, a.left, a.tried
	a.tried = nil
	a.mu.Unlock()
	var err error
	switch {
	case wanted:
		err = a.vip.Take()
	case minding:
		err = a.vip.Lend()
	case left: // if this node does not serve in time, the kernel ends them
	default:
		err = a.remove()
	}
	a.note(err)
	a.mu.Lock()
	a.outcome = err
	a.taken = wanted && err == nil
	a.mu.Unlock()
	if tried != nil {
		close(tried)
	}
	a.service.poke()
}

func (a *addresses) remove() error {
	left, err := a.vip.Leave()
	if len(left.Removed) > 0 {
		a.service.event("addresses", "here", "removed", fmt.Sprintf("%v, %d connections reset", left.Removed, left.Connections), "")
	}
	if left.Unreset != nil && !errors.Is(left.Unreset, errors.ErrUnsupported) {
		err = errors.Join(err, left.Unreset)
	}
	return err
}

// renew gives the addresses another lifetime, while the lease holds: a daemon
// that is dead or frozen loses them by itself.
func (a *addresses) renew() {
	if !a.wanted() || !a.service.volumes[0].lease.holds() {
		return
	}
	err := a.vip.Renew()
	if errors.Is(err, vip.ErrLost) {
		err = a.vip.Take()
	}
	a.note(err)
}

func (a *addresses) note(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	a.mu.Lock()
	news := problem != "" && problem != a.problem
	a.problem = problem
	a.mu.Unlock()
	if news {
		a.service.event("addresses", "", "problem", problem, "")
	}
}

// here reports whether this node has the addresses, to be used.
func (a *addresses) here() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken
}

// keep leaves alone what an earlier process has left, until somebody says what is
// wanted: clients are connected to it.
func (a *addresses) keep() {
	a.mu.Lock()
	a.left = true
	a.mu.Unlock()
}

// mind keeps the addresses here while the peer takes the service over, so that
// clients are answered until they are there.
func (a *addresses) mind(ctx context.Context) error {
	a.mu.Lock()
	a.minding = make(chan struct{})
	a.mu.Unlock()
	time.AfterFunc(a.mindLimit(), a.stopMinding)
	return a.set(ctx, false)
}

// stopMinding: the peer has the addresses, or has had long enough.
func (a *addresses) stopMinding() {
	a.mu.Lock()
	minding := a.minding
	a.minding = nil
	a.mu.Unlock()
	if minding != nil {
		close(minding)
		a.poke()
	}
}

// awaitMinded returns when the addresses are not minded for the peer: whoever
// connects meanwhile is told where the service is by the reset that comes with
// their leaving.
func (a *addresses) awaitMinded(ctx context.Context) {
	a.mu.Lock()
	minding := a.minding
	a.mu.Unlock()
	if minding != nil {
		select {
		case <-minding:
		case <-ctx.Done():
		}
	}
}

// set says what is wanted and waits until that was tried.
func (a *addresses) set(ctx context.Context, up bool) error {
	if up {
		a.stopMinding()
	}
	a.mu.Lock()
	a.up, a.left = up, false
	if a.tried == nil {
		a.tried = make(chan struct{})
	}
	tried := a.tried
	a.mu.Unlock()
	a.poke()
	select {
	case <-tried:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.outcome
}

// take is the way up: addresses that a stranger has are not taken.
func (a *addresses) take(ctx context.Context, _ application.Order) error {
	if err := a.free(ctx); err != nil {
		return err
	}
	return a.set(ctx, true)
}

// leave is the way down.
func (a *addresses) leave(ctx context.Context, _ application.Order) error {
	if a.service.shown.Load().machine.HandsOver() {
		return a.mind(ctx)
	}
	return a.set(ctx, false)
}

// forsake is the way down when the right is lost: nothing is minded for anybody.
func (a *addresses) forsake(ctx context.Context, _ application.Order) error {
	a.stopMinding()
	return a.set(ctx, false)
}

// free makes sure that no stranger has the addresses. A peer that had them until
// now is proof enough; else they are probed for, if possible ahead, while the
// witness was asked.
func (a *addresses) free(ctx context.Context) error {
	a.mu.Lock()
	known := time.Since(a.probed) < probeLasts || time.Since(a.lent) < probeLasts && a.service.shown.Load().machine.PeerAudible()
	a.mu.Unlock()
	if known {
		return nil
	}
	_, err := a.probe(ctx)
	return err
}

// peerServes notes that the peer said so.
func (a *addresses) peerServes() {
	a.mu.Lock()
	a.lent = time.Now()
	a.mu.Unlock()
}

// probe asks who has the addresses, and reports whether the peer has.
func (a *addresses) probe(ctx context.Context) (peerHas bool, err error) {
	answers, err := a.vip.Probe(ctx)
	if err != nil {
		return false, err
	}
	peerHas, err = vip.Judge(answers, a.service.peerHardware())
	if err == nil {
		a.mu.Lock()
		a.probed = time.Now()
		a.mu.Unlock()
	}
	return peerHas, err
}

// probeAhead probes while something else takes its time.
func (a *addresses) probeAhead(ctx context.Context) {
	if len(a.service.cfg.IP) == 0 {
		return
	}
	go func() {
		if _, err := a.probe(ctx); err != nil && ctx.Err() == nil {
			a.note(err)
		}
	}()
}

// hide removes the addresses while nothing may be served, show takes them again.
func (a *addresses) hide(hidden bool) {
	a.mu.Lock()
	a.hidden, a.left = hidden, a.left && !hidden
	a.mu.Unlock()
	a.poke()
}

func (a *addresses) announce(why string) {
	if a.wanted() {
		a.vip.Announce(why)
	}
}

// linkChanged: an interface that an address belongs on has lost its carrier, or
// has it again.
func (a *addresses) linkChanged(l vip.Link) {
	state := map[bool]string{true: "up", false: "down"}[l.Up]
	a.service.event("link", "", state, fmt.Sprintf("interface %s of %v", l.Interface, l.Address), "")
	links, err := a.vip.Links()
	a.mu.Lock()
	a.detached = err == nil && slices.ContainsFunc(links, func(l vip.Link) bool { return !l.Up })
	a.mu.Unlock()
	if l.Up {
		a.announce("the link is back")
	}
	a.service.poke()
}

// cutLoose reports whether the service's network does not carry here.
func (a *addresses) cutLoose() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.detached
}

// checkFromOutside looks, where the peer serves, to whom its addresses lead.
func (a *addresses) checkFromOutside(ctx context.Context) {
	if m := &a.service.shown.Load().machine; a.wanted() || !m.PeerServes() || !m.PeerAudible() {
		return
	}
	answers, err := a.vip.Resolve(ctx)
	if err != nil {
		a.note(err)
		return
	}
	_, err = vip.Judge(answers, a.service.peerHardware())
	a.note(err)
}

func (a *addresses) trouble() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.problem
}

// hardware is from where this node answers for the addresses; the peer needs it.
func (a *addresses) hardware() []string {
	if len(a.service.cfg.IP) == 0 {
		return nil
	}
	own, err := a.vip.Hardware()
	if err != nil {
		return nil
	}
	var list []string
	for _, h := range own {
		list = append(list, h.String())
	}
	return list
}

// peerHardware is what the peer last said of itself.
func (s *service) peerHardware() []net.HardwareAddr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []net.HardwareAddr
	for _, text := range s.about.Hardware {
		if h, err := net.ParseMAC(text); err == nil {
			list = append(list, h)
		}
	}
	return list
}

// ping asks the router, and whether the peer is seen to have the addresses.
func (s *service) ping(ctx context.Context, nonce uint64) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Pace.Timeout/2)
	defer cancel()
	var p failover.Ping
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, ip := range s.node.cfg.Witness.Ping {
			p.Router = p.Router || vip.Ping(ctx, ip) == nil
		}
	})
	peerHas, err := s.app.addresses.probe(ctx)
	wg.Wait()
	p.Peer = peerHas || err != nil
	s.put(context.WithoutCancel(ctx), func(m *failover.Machine, now time.Duration) []failover.Action { return m.Pinged(now, nonce, p) })
}
