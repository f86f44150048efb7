// SPDX-License-Identifier: Apache-2.0

package node

import "time"

// The kernel reads each connection in a work of its own, which lasts as long as the
// connection. Where it is slow to make workers, for the machine is busy or short of
// memory, it gives such works to one thread, the rescuer, which begins the second when
// the first has ended: never. Answers on the second stay unread until the kernel gives
// that connection up, 4 s later, and whoever takes a service over waits as long. So
// where answers stay unread, a connection that is read and has nothing under way is
// ended: the one that the kernel was given first, for in that order the rescuer takes
// them. It goes on to the next, and what was ended is replaced like all that die.

const (
	readEvery    = 100 * time.Millisecond
	readPatience = 3 // looks in a row that find the same answers unread
)

// progress is what a look at a connection finds.
type progress struct {
	answered uint64 // requests
	unread   int    // bytes of answers that the kernel has not taken, as it accounts for them
}

// look looks at the connection.
func (e *deviceEnd) look() {
	st := e.session.Stats()
	now := progress{st.Requests - uint64(st.InFlight), unread(e.file)}
	if now != e.progress || now.unread == 0 {
		e.same = 0
	}
	e.progress = now
	e.same++
}

// overlooked is true after some looks that have found the same answers unread, and
// then again after as many, but not for ever: something else may be the reason.
func (e *deviceEnd) overlooked() bool {
	return e.progress.unread > 0 && e.same%readPatience == 0 && e.same < readPatience*mostConnections
}

// freeReader ends a connection so that another is read. Loop's thread only.
func (d *device) freeReader() {
	waits := false
	for _, e := range d.ends {
		e.look()
		waits = waits || e.overlooked()
	}
	if !waits || d.volume.resting {
		return
	}
	for _, e := range d.ends {
		if e.progress.unread == 0 && e.session.Idle() {
			d.log.Info("the kernel does not read the answers on a connection; another is ended, for its reader may be needed there")
			e.port.Close()
			return
		}
	}
}
