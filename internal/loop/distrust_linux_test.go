// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// socketPair returns two ends as the kernel's driver and the daemon have them.
func socketPair(t *testing.T) (theirs int, ours net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[1]), "ours")
	defer file.Close()
	ours, err = net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], ours
}

// counted is a stream that counts what it gets.
type counted struct {
	room     [64]byte
	received chan int
	closed   chan error
}

func newCounted() *counted {
	return &counted{received: make(chan int, 16), closed: make(chan error, 1)}
}

func (c *counted) Room() []byte { return c.room[:] }
func (c *counted) Received(n int) error {
	c.received <- n
	return nil
}
func (c *counted) Output() [][]byte { return nil }
func (c *counted) Sent(int)         {}
func (c *counted) Closed(err error) { c.closed <- err }

// What a connection holds that was given up before it was read, as after a
// freeze, is thrown away; without Distrust it is taken.
func TestDistrust(t *testing.T) {
	for name, distrust := range map[string]bool{"trusted": false, "distrusted": true} {
		t.Run(name, func(t *testing.T) {
			l := New(Options{})
			theirs, ours := socketPair(t)
			defer unix.Close(theirs)
			s := newCounted()
			p, err := l.Add(ours, s)
			if err != nil {
				t.Fatal(err)
			}
			if distrust {
				p.Distrust()
			}
			if _, err := unix.Write(theirs, []byte("an old request")); err != nil {
				t.Fatal(err)
			}
			if err := unix.Shutdown(theirs, unix.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- l.Run(ctx, &idleCore{}) }()
			err = within(t, "closed", s.closed)
			if got := len(s.received); distrust != (got == 0) {
				t.Errorf("%d pieces were received", got)
			}
			if distrust != (err == errVoid) {
				t.Errorf("ended with %v", err)
			}
			stop()
			if err := within(t, "the loop's end", ended); err != nil {
				t.Error(err)
			}
		})
	}
}

// A connection that lives is read as ever.
func TestDistrustOfTheLiving(t *testing.T) {
	l := start(t, Options{}, &idleCore{})
	theirs, ours := socketPair(t)
	s := newCounted()
	if !l.Post(func() {
		p, err := l.Add(ours, s)
		if err != nil {
			t.Error(err)
			return
		}
		p.Distrust()
	}) {
		t.Fatal("the loop has ended")
	}
	if _, err := unix.Write(theirs, []byte("a request")); err != nil {
		t.Fatal(err)
	}
	if n := within(t, "a request", s.received); n != len("a request") {
		t.Errorf("%d bytes", n)
	}
	unix.Close(theirs)
	within(t, "closed", s.closed)
}

// The question after each read costs no memory.
func TestDistrustAllocatesNothing(t *testing.T) {
	l := New(Options{})
	theirs, ours := socketPair(t)
	defer unix.Close(theirs)
	p, err := l.Add(ours, newCounted())
	if err != nil {
		t.Fatal(err)
	}
	defer p.link.close()
	p.Distrust()
	if n := testing.AllocsPerRun(100, func() {
		if p.void() {
			t.Error("a connection that lives is void")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
