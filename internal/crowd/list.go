// SPDX-License-Identifier: Apache-2.0

package crowd

import (
	"net"
	"sync"
)

// List is who is connected. Its limits are set before it is used.
type List struct {
	Most        int // at once
	MostPerHost int // at once from one host; 0: as many as Most
	Keep        int // guests of this rank and above are not sent away; 0: everybody may be

	mu     sync.Mutex
	guests map[*Guest]struct{}
	hosts  map[string]int
	clock  uint64 // counts what happens, to know what was longer ago
	sent   uint64 // away
}

// Guest is one connection in a List. All its methods may be called after it has
// been sent away or has left; then they do nothing.
type Guest struct {
	list   *List
	host   string
	rank   int    // the higher, the later it is sent away
	seen   uint64 // when it last showed that it is of use
	cut    func()
	absent bool
}

// Enter lets a connection in. When there is no room, the one of the lowest rank
// is sent away, of several the one that has been of no use for the longest: from
// the same host, if that has as many as it may, else from the host that has most.
// cut ends the connection; it is called at most once, on any goroutine, and must
// not wait. Newcomers have rank 0. The result is nil when there is no room and
// nobody may be sent away.
func (l *List) Enter(host string, cut func()) *Guest {
	l.mu.Lock()
	if l.guests == nil {
		l.guests, l.hosts = make(map[*Guest]struct{}), make(map[string]int)
	}
	var victim *Guest
	switch {
	case l.MostPerHost > 0 && l.hosts[host] >= l.MostPerHost:
		victim = l.worst(func(g *Guest) bool { return g.host == host })
	case len(l.guests) >= l.Most:
		victim = l.worst(func(*Guest) bool { return true })
	}
	if victim != nil {
		if l.Keep > 0 && victim.rank >= l.Keep {
			l.mu.Unlock()
			return nil
		}
		l.remove(victim)
		l.sent++
	}
	l.clock++
	g := &Guest{list: l, host: host, seen: l.clock, cut: cut}
	l.guests[g] = struct{}{}
	l.hosts[host]++
	l.mu.Unlock()
	if victim != nil {
		victim.cut()
	}
	return g
}

// worst is who goes first of those that match. Called with the lock held.
func (l *List) worst(match func(*Guest) bool) (worst *Guest) {
	for g := range l.guests {
		if match(g) && (worst == nil || l.before(g, worst)) {
			worst = g
		}
	}
	return worst
}

// before reports whether a goes before b.
func (l *List) before(a, b *Guest) bool {
	switch {
	case a.rank != b.rank:
		return a.rank < b.rank
	case l.hosts[a.host] != l.hosts[b.host]:
		return l.hosts[a.host] > l.hosts[b.host]
	}
	return a.seen < b.seen
}

func (l *List) remove(g *Guest) {
	g.absent = true
	delete(l.guests, g)
	if l.hosts[g.host]--; l.hosts[g.host] == 0 {
		delete(l.hosts, g.host)
	}
}

// Len is how many are there; Sent how many were sent away.
func (l *List) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.guests)
}

// Sent is how many were sent away to make room.
func (l *List) Sent() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// Seen says that the guest has just been of use.
func (g *Guest) Seen() { g.change(func() {}) }

// Rank gives the guest a rank, and says that it has just been of use.
func (g *Guest) Rank(rank int) { g.change(func() { g.rank = rank }) }

func (g *Guest) change(f func()) {
	g.list.mu.Lock()
	defer g.list.mu.Unlock()
	if g.absent {
		return
	}
	f()
	g.list.clock++
	g.seen = g.list.clock
}

// Leave says that the connection has ended.
func (g *Guest) Leave() {
	g.list.mu.Lock()
	defer g.list.mu.Unlock()
	if !g.absent {
		g.list.remove(g)
	}
}

// Host is what connections are counted by: the address without the port.
func Host(a net.Addr) string {
	if a == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}
