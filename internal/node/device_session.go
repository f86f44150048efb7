// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/twinbd/twinbd/internal/loop"
	"github.com/twinbd/twinbd/nbd"
)

// deviceEnd is our end of a connection with the kernel.
type deviceEnd struct {
	session *nbd.Session
	port    *loop.Port
	file    *os.File // beside the loop's duplicate

	progress progress // see device_reader.go
	same     int      // looks in a row that found it
}

// kernelStream is a session with the kernel: it says when its connection ends,
// which may be long before its last request does.
type kernelStream struct {
	*nbd.Session
	device *device
}

// Closed is the last call from the loop.
func (s *kernelStream) Closed(err error) {
	s.device.closeEnd(s.Session)
	s.device.ended(-1, +1)
	s.Session.Closed(err)
}

// serve begins the transmission on our end of a connection with the kernel. No
// handshake: the kernel is told what it would have agreed on. ours stays open beside
// the loop's duplicate, so that it can be handed to a successor of this process.
func (d *device) serve(ours *os.File) error {
	conn, err := net.FileConn(ours) // a duplicate
	if err != nil {
		ours.Close()
		return fmt.Errorf("take over connection: %w", err)
	}
	v := d.volume
	n := &nbd.Negotiated{Conn: conn, Export: nbd.Export{Name: v.cfg.Name, Size: v.cfg.Size}}
	d.mu.Lock()
	d.alive++
	d.mu.Unlock()
	if !v.loop.Post(func() { d.enter(n, ours) }) {
		conn.Close()
		ours.Close()
		d.ended(-1, 0)
		return errStopping
	}
	return nil
}

// enter makes the connection a session of the volume, on the loop's thread.
func (d *device) enter(n *nbd.Negotiated, ours *os.File) {
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
	if v.resting { // it is handed on as it is
		session.Drain(func() {})
	}
	var err error
	if port, err = v.loop.Add(n.Conn, &kernelStream{session, d}); err != nil {
		d.log.Warn("connection with the kernel not admitted", "error", err)
		n.Conn.Close()
		ours.Close()
		d.ended(-1, 0)
		return
	}
	d.ends = append(d.ends, &deviceEnd{session: session, port: port, file: ours})
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

// closeEnd lets the kernel see that the connection has ended, unless it has been
// handed on. Loop's thread only.
func (d *device) closeEnd(session *nbd.Session) {
	d.ends = slices.DeleteFunc(d.ends, func(e *deviceEnd) bool {
		if e.session != session {
			return false
		}
		e.file.Close()
		return true
	})
}

// serves reports whether a session is with the kernel. d may be nil. Loop's thread only.
func (d *device) serves(session *nbd.Session) bool {
	return d != nil && slices.ContainsFunc(d.ends, func(e *deviceEnd) bool { return e.session == session })
}
