// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/twinbd/twinbd/internal/crowd"
)

// The control socket is for the operator, most of all when something is wrong, and
// also then when a script has opened connections without end. There is room for so
// many; one more takes the place of one that is asking for nothing. What follows
// events or acts for long is bounded by itself, so that a question always finds a
// place beside it.
const (
	maxConnections = 128
	maxLong        = 64

	rankBusy = 1 // carries something out
)

// errBusy refuses a long answer when there are very many.
var errBusy = &Refusal{
	Message: "too many commands and followers of events are under way at this node",
	Hint:    "end some: `lsof` shows who has its control socket open",
}

// attendance is who is connected. Methods of a nil one let everybody be.
type attendance struct {
	list crowd.List

	mu   sync.Mutex
	here map[net.Conn]*crowd.Guest
	long int
}

func newAttendance() *attendance {
	a := &attendance{here: make(map[net.Conn]*crowd.Guest)}
	a.list.Most, a.list.Keep = maxConnections, rankBusy
	return a
}

// noticed is told by the server of each connection's state.
func (a *attendance) noticed(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		g := a.list.Enter("", func() { conn.Close() })
		if g == nil {
			conn.Close()
			return
		}
		a.mu.Lock()
		a.here[conn] = g
		a.mu.Unlock()
	case http.StateActive: // its request begins to arrive
		a.mu.Lock()
		g := a.here[conn]
		a.mu.Unlock()
		if g != nil {
			g.Seen()
		}
	case http.StateClosed, http.StateHijacked:
		a.mu.Lock()
		g := a.here[conn]
		delete(a.here, conn)
		a.mu.Unlock()
		if g != nil {
			g.Leave()
		}
	}
}

// begin marks the connection of a request as one that carries something out, until
// end is called. An error says that there are too many of these.
func (a *attendance) begin(ctx context.Context) (end func(), err error) {
	conn, ok := ctx.Value(connKey{}).(net.Conn)
	if a == nil || !ok {
		return func() {}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.here[conn]
	if g == nil || a.long >= maxLong {
		return nil, errBusy
	}
	a.long++
	g.Rank(rankBusy)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.long--
		g.Rank(0)
	}, nil
}

// connKey is under what a request's context knows its connection.
type connKey struct{}
