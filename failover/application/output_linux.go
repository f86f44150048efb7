// SPDX-License-Identifier: Apache-2.0

package application

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// output reads what a command prints. It goes on after the command has ended
// while a process that the command left behind holds the pipe: that one would
// be killed by SIGPIPE at its next line otherwise.
type output struct {
	tail    tail
	read    *os.File
	settled chan struct{} // closed when all that the command itself wrote is in the tail
}

// newOutput also returns the end that the command gets; its caller closes it.
func newOutput() (*output, *os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe for the output: %w", err)
	}
	return hold(read), write, nil
}

// pipes are those that are being read, for a successor of this process.
var pipes struct {
	sync.Mutex
	open map[*output]struct{}
}

// hold makes the reading end of a pipe an output.
func hold(read *os.File) *output {
	o := &output{read: read, settled: make(chan struct{})}
	pipes.Lock()
	defer pipes.Unlock()
	if pipes.open == nil {
		pipes.open = make(map[*output]struct{})
	}
	pipes.open[o] = struct{}{}
	return o
}

func (o *output) release() {
	pipes.Lock()
	delete(pipes.open, o)
	pipes.Unlock()
	o.read.Close()
}

// Pipes returns duplicates of the pipes to which something may be printed still by
// what commands have left behind. A successor of this process is to read them on.
func Pipes() (list []*os.File) {
	pipes.Lock()
	defer pipes.Unlock()
	for o := range pipes.open {
		raw, err := o.read.SyscallConn()
		if err != nil {
			continue // it has come to its end
		}
		_ = raw.Control(func(fd uintptr) {
			if copied, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
				list = append(list, os.NewFile(uintptr(copied), "output"))
			}
		})
	}
	return list
}

// ReadOn reads the pipes that the process before this one has read.
func ReadOn(list []*os.File) {
	for _, read := range list {
		go hold(read).drain()
	}
}

// drain reads until nobody holds the pipe, or close.
func (o *output) drain() {
	defer o.release()
	settled := false
	buffer := make([]byte, 32<<10)
	for {
		n, err := o.read.Read(buffer)
		o.tail.Write(buffer[:n])
		if err == nil {
			continue
		}
		again := errors.Is(err, os.ErrDeadlineExceeded) && o.catchUp(buffer)
		if !settled {
			settled = true
			close(o.settled)
		}
		if !again {
			return
		}
	}
}

// settle is called when the command has ended. It waits until what that had
// written before is in the tail, though the pipe may never come to its end.
func (o *output) settle() string {
	// A deadline in the past interrupts the Read; an error means that the pipe
	// has come to its end already.
	_ = o.read.SetReadDeadline(time.Unix(1, 0))
	<-o.settled
	return o.tail.String()
}

// catchUp reads what is in the pipe now. What the command wrote fits into the
// pipe's capacity; a process that floods it goes on for no longer than that.
func (o *output) catchUp(buffer []byte) bool {
	if o.read.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	raw, err := o.read.SyscallConn()
	if err != nil {
		return false
	}
	left := 1 << 20 // the largest pipe that an unprivileged process can make
	for left > 0 {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), buffer) // does not block: it is a descriptor of the poller
			return true
		})
		if err != nil || n <= 0 {
			break
		}
		o.tail.Write(buffer[:n])
		left -= n
	}
	return true
}

// close ends drain though somebody may hold the pipe.
func (o *output) close() { _ = o.read.Close() }
