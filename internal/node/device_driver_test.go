// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// fakeDriver is the kernel's driver with one device, as nbd.Driver shows it: it
// keeps its ends of the connections, sends requests on those that live, and has
// requests wait while none does.
type fakeDriver struct {
	t *testing.T

	mu     sync.Mutex
	cond   *sync.Cond
	state  nbd.DeviceState
	opened bool // somebody keeps it open
	glance bool // somebody opens it at the moment it is to be attached
	ioctl  bool // it is reached that way
	busy   bool // one thread reads all that it is attached with, each to its end
	ends   []*fakeEnd
	asked  []string
	lost   func(int)
	setups []nbd.Setup
}

// fakeEnd is the kernel's end of a connection.
type fakeEnd struct {
	conn    net.Conn
	dead    bool
	replies chan block.Status
	data    chan []byte
	reading int // bytes that the answer to the request under way brings
}

func newFakeDriver(t *testing.T) *fakeDriver {
	d := &fakeDriver{t: t, state: nbd.DeviceState{There: true}}
	d.cond = sync.NewCond(&d.mu)
	return d
}

func (d *fakeDriver) open() (deviceKernel, error) { return d, nil }

func (d *fakeDriver) note(what string) {
	d.asked = append(d.asked, what)
	d.cond.Broadcast()
}

func (d *fakeDriver) Look(int) (nbd.DeviceState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state, nil
}

func (d *fakeDriver) Replaces() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.ioctl
}

// byIoctl has the driver reached by ioctl.
func (d *fakeDriver) byIoctl() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ioctl = true
}

func (d *fakeDriver) Connect(s nbd.Setup) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("connect")
	d.setups = append(d.setups, s)
	if d.state.Used || d.glance {
		d.glance = false
		return nbd.ErrDeviceBusy
	}
	d.ends = nil
	for _, fd := range s.Sockets {
		d.ends = append(d.ends, d.take(fd))
	}
	if d.busy {
		go d.rescue(slices.Clone(d.ends))
	} else {
		d.readEach(d.ends)
	}
	d.state = nbd.DeviceState{
		There: true, Used: true, Attached: true, Backend: s.Backend, PID: os.Getpid(), Size: s.Size, Connections: len(s.Sockets),
	}
	return nil
}

func (d *fakeDriver) Reconfigure(s nbd.Setup) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("reconfigure")
	d.setups = append(d.setups, s)
	if s.Backend != d.state.Backend {
		return unix.EINVAL
	}
	fds := s.Sockets
	for i, e := range d.ends {
		if e.dead && len(fds) > 0 {
			d.ends[i], fds = d.take(fds[0]), fds[1:]
			d.readEach(d.ends[i : i+1])
		}
	}
	return nil
}

// take holds a descriptor, as the kernel does.
func (d *fakeDriver) take(fd int) *fakeEnd {
	held, err := unix.Dup(fd)
	if err != nil {
		d.t.Error(err)
		return &fakeEnd{dead: true}
	}
	file := os.NewFile(uintptr(held), "kernel's end")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		d.t.Error(err)
		return &fakeEnd{dead: true}
	}
	return &fakeEnd{conn: conn, replies: make(chan block.Status, 1), data: make(chan []byte, 1)}
}

// readEach reads each connection on a thread of its own.
func (d *fakeDriver) readEach(ends []*fakeEnd) {
	for _, e := range ends {
		if !e.dead {
			go d.receive(e)
		}
	}
}

// rescue reads one connection after the other, as the kernel's rescuer does.
func (d *fakeDriver) rescue(ends []*fakeEnd) {
	for _, e := range ends {
		d.receive(e)
	}
}

// stayBusy has that happen.
func (d *fakeDriver) stayBusy() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = true
}

func (d *fakeDriver) receive(e *fakeEnd) {
	defer close(e.replies)
	for {
		var header [16]byte
		if _, err := io.ReadFull(e.conn, header[:]); err != nil {
			d.kill(e)
			return
		}
		status := block.Status(binary.BigEndian.Uint32(header[4:]))
		d.mu.Lock()
		data := make([]byte, e.reading)
		d.mu.Unlock()
		if status == block.OK {
			if _, err := io.ReadFull(e.conn, data); err != nil {
				d.kill(e)
				return
			}
			e.data <- data
		}
		e.replies <- status
	}
}

// kill gives a connection up, as after a timeout, and tells.
func (d *fakeDriver) kill(e *fakeEnd) {
	d.mu.Lock()
	was := e.dead
	e.dead = true
	lost := d.lost
	d.cond.Broadcast()
	d.mu.Unlock()
	e.conn.Close()
	if !was && lost != nil {
		lost(0)
	}
}

// killAll gives every connection up.
func (d *fakeDriver) killAll() {
	d.mu.Lock()
	ends := slices.Clone(d.ends)
	d.mu.Unlock()
	for _, e := range ends {
		d.kill(e)
	}
}

func (d *fakeDriver) Disconnect(int) error {
	d.mu.Lock()
	d.note("disconnect")
	ends := slices.Clone(d.ends)
	d.ends = nil
	if !d.opened {
		d.state = nbd.DeviceState{There: true}
	}
	d.cond.Broadcast()
	d.mu.Unlock()
	for _, e := range ends {
		if e.conn != nil {
			d.kill(e)
		}
	}
	return nil
}

func (d *fakeDriver) Tune(int) []string { return nil }
func (d *fakeDriver) Node(int) error    { return nil }

func (d *fakeDriver) Watch(ctx context.Context, lost func(int)) error {
	d.mu.Lock()
	d.lost = lost
	d.mu.Unlock()
	<-ctx.Done()
	return nil
}

var errNoDevice = errors.New("the device is not attached")

// request does what the block layer does: it sends on a connection that lives,
// waits for one where there is none, and repeats on another what had no answer.
func (d *fakeDriver) request(op block.Op, offset int64, p []byte) error {
	for {
		e, err := d.living()
		if err != nil {
			return err
		}
		if err := d.requestOn(e, op, offset, p); !errors.Is(err, errDead) {
			return err
		}
	}
}

var errDead = errors.New("the connection has died")

// requestOn sends a request on a connection.
func (d *fakeDriver) requestOn(e *fakeEnd, op block.Op, offset int64, p []byte) error {
	record := make([]byte, block.RecordHeader)
	d.mu.Lock()
	e.reading = 0
	if op == block.Read {
		e.reading = len(p)
	}
	d.mu.Unlock()
	block.PutRecord(record, op, 0, 1, offset, int64(len(p)))
	if op == block.Write {
		record = append(record, p...)
	}
	if _, err := e.conn.Write(record); err != nil {
		d.kill(e)
		return errDead
	}
	status, ok := <-e.replies
	if !ok {
		return errDead
	}
	if status != block.OK {
		return fmt.Errorf("%v at %d: %w", op, offset, status)
	}
	if data := <-e.data; op == block.Read {
		copy(p, data)
	}
	return nil
}

func (d *fakeDriver) living() (*fakeEnd, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if len(d.ends) == 0 {
			return nil, errNoDevice
		}
		for _, e := range d.ends {
			if !e.dead {
				return e, nil
			}
		}
		d.cond.Wait()
	}
}

// until waits for something of the driver's.
func (d *fakeDriver) until(what string, is func() bool) {
	d.t.Helper()
	deadline := time.AfterFunc(20*time.Second, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.cond.Broadcast()
	})
	defer deadline.Stop()
	end := time.Now().Add(20 * time.Second)
	d.mu.Lock()
	defer d.mu.Unlock()
	for !is() {
		if time.Now().After(end) {
			d.t.Fatalf("not within 20 s: %s; asked %v", what, d.asked)
		}
		d.cond.Wait()
	}
}

func (d *fakeDriver) attached() bool { return d.state.Attached }

// done returns what the driver was asked, and forgets it.
func (d *fakeDriver) done() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked := d.asked
	d.asked = nil
	return asked
}

// writing is a program that writes, one request after the other, until it is stopped.
type writing struct {
	driver *fakeDriver
	ended  chan error

	mu    sync.Mutex
	cond  *sync.Cond
	over  bool
	count int
	worst time.Duration
}

func (d *fakeDriver) writes(t *testing.T) *writing {
	w := &writing{driver: d, ended: make(chan error, 1)}
	w.cond = sync.NewCond(&w.mu)
	go w.run()
	t.Cleanup(func() { w.stop(t) })
	return w
}

func (w *writing) run() {
	for i := 0; ; i++ {
		began := time.Now()
		if err := w.driver.request(block.Write, int64(i%16)*8192, pattern(byte(i))); err != nil {
			w.ended <- err
			return
		}
		w.mu.Lock()
		w.count++
		w.worst = max(w.worst, time.Since(began))
		over := w.over
		w.cond.Broadcast()
		w.mu.Unlock()
		if over {
			w.ended <- nil
			return
		}
	}
}

// more waits until so many more writes are acknowledged.
func (w *writing) more(t *testing.T, n int) {
	t.Helper()
	defer time.AfterFunc(20*time.Second, w.cond.Broadcast).Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for deadline, want := time.Now().Add(20*time.Second), w.count+n; w.count < want; w.cond.Wait() {
		if time.Now().After(deadline) {
			t.Fatalf("writes do not go on; the driver was asked %v", w.driver.asked)
		}
	}
}

// longest is how long the longest write has taken since the last call.
func (w *writing) longest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	worst := w.worst
	w.worst = 0
	return worst.Round(time.Millisecond)
}

func (w *writing) stop(t *testing.T) {
	w.mu.Lock()
	was := w.over
	w.over = true
	w.mu.Unlock()
	if was {
		return
	}
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
}
