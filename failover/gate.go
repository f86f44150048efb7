// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"net"
	"sync"
)

// gate counts connections, all and per host, so that one host that opens
// connections without end cannot keep the nodes out.
type gate struct {
	mu     sync.Mutex
	total  int
	byHost map[string]int
}

// enter reports whether there is room for one more connection from the host.
func (g *gate) enter(host string, maxTotal, maxHost int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= maxTotal || g.byHost[host] >= maxHost {
		return false
	}
	if g.byHost == nil {
		g.byHost = make(map[string]int)
	}
	g.total++
	g.byHost[host]++
	return true
}

func (g *gate) leave(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.byHost[host]--; g.byHost[host] == 0 {
		delete(g.byHost, host)
	}
}

// hostOf is what connections are counted by: the address without the port.
func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}
