// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net"
	"os"

	"github.com/twinbd/twinbd/internal/loop"
	"github.com/twinbd/twinbd/nbd"
)

// kernelStream is a session with the kernel: it says when its connection ends,
// which may be long before its last request does.
type kernelStream struct {
	*nbd.Session
	ended func()
}

// Closed is the last call from the loop.
func (s *kernelStream) Closed(err error) {
	s.ended()
	s.Session.Closed(err)
}

// serve begins the transmission on our end of a connection with the kernel. No
// handshake: the kernel is told what it would have agreed on.
func (d *device) serve(ours *os.File) error {
	conn, err := net.FileConn(ours) // a duplicate
	ours.Close()
	if err != nil {
		return fmt.Errorf("take over connection: %w", err)
	}
	v := d.volume
	n := &nbd.Negotiated{Conn: conn, Export: nbd.Export{Name: v.cfg.Name, Size: v.cfg.Size}}
	d.mu.Lock()
	d.alive++
	d.mu.Unlock()
	if !v.loop.Post(func() { d.enter(n) }) {
		conn.Close()
		d.ended(-1, 0)
		return errStopping
	}
	return nil
}

// enter makes the connection a session of the volume, on the loop's thread.
func (d *device) enter(n *nbd.Negotiated) {
	v := d.volume
	var port *loop.Port
	var session *nbd.Session
	session = nbd.NewSession(n, &v.batch, nbd.Options{
		Wake: func() { port.Kick() },
		Hangup: func(err error) {
			if err != nil {
				d.log.Warn("connection with the kernel dropped", "error", err)
			}
			port.Close()
		},
		Idle: func() {
			delete(v.sessions, session)
			d.ended(0, -1)
		},
	})
	var err error
	if port, err = v.loop.Add(n.Conn, &kernelStream{session, func() { d.ended(-1, +1) }}); err != nil {
		d.log.Warn("connection with the kernel not admitted", "error", err)
		n.Conn.Close()
		d.ended(-1, 0)
		return
	}
	port.Distrust() // what the kernel gave up it sends again elsewhere
	port.Gate(v.lease.holds)
	v.sessions[session] = port
}

// ended counts connections that live, and those whose requests are not over.
func (d *device) ended(alive, ending int) {
	d.mu.Lock()
	d.alive += alive
	d.ending += ending
	d.mu.Unlock()
	d.ring()
}
