// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"testing"
	"time"
)

// pass sends total random bytes in random pieces and compares what returns.
func pass(conn net.Conn, seed uint64, total int) error {
	sum := make(chan []byte, 1)
	fail := make(chan error, 1)
	go func() {
		source := mrand.NewChaCha8([32]byte(fmt.Appendf(nil, "%032d", seed)))
		rng := mrand.New(source)
		h := sha256.New()
		for left := total; left > 0; {
			b := make([]byte, min(left, 1+rng.IntN(1+rng.IntN(100_000))))
			_, _ = source.Read(b)
			h.Write(b)
			if _, err := conn.Write(b); err != nil {
				fail <- fmt.Errorf("send: %w", err)
				return
			}
			left -= len(b)
		}
		fail <- nil
		sum <- h.Sum(nil)
	}()
	h := sha256.New()
	if _, err := io.CopyN(h, conn, int64(total)); err != nil {
		return fmt.Errorf("seed %d: receive: %w", seed, err)
	}
	if err := <-fail; err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	if !bytes.Equal(h.Sum(nil), <-sum) {
		return fmt.Errorf("seed %d: other bytes came back", seed)
	}
	return nil
}

func TestEcho(t *testing.T) {
	each(t, func(t *testing.T, l *Loop, client, server net.Conn) {
		seed := uint64(time.Now().UnixNano())
		const total = 700_000
		s := newEcho(seed, 300_000)
		add(t, l, server, s)
		if err := pass(client, seed, total); err != nil {
			t.Fatal(err)
		}
		client.Close()
		if err := within(t, "end", s.closed); err != nil {
			t.Errorf("closed in good order: %v", err)
		}
	})
}

// Many ports in one loop, with little room each, so that each waits for its
// own output while the others go on.
func TestManyPorts(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			l := start(t, k.o, &idleCore{})
			const ports = 24
			results := make(chan error, ports)
			for i := range ports {
				tr := transports[i%len(transports)]
				client, server := tr.pair(t)
				seed := uint64(time.Now().UnixNano())
				add(t, l, server, newEcho(seed, 1000+i*3000))
				go func() {
					if err := pass(client, seed, 100_000); err != nil {
						results <- fmt.Errorf("%s: %w", tr.name, err)
						return
					}
					results <- nil
				}()
			}
			for range ports {
				if err := within(t, "result", results); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// fixed is a stream with a fixed thing to say, and room on demand.
type fixed struct {
	echo
	say   []byte
	deaf  bool
	turns func(n int) error
}

func newFixed(say string) *fixed {
	return &fixed{echo: *newEcho(1, 1<<16), say: []byte(say)}
}

func (f *fixed) Room() []byte {
	if f.deaf {
		return nil
	}
	return f.echo.Room()
}

func (f *fixed) Received(n int) error {
	if f.turns != nil {
		return f.turns(n)
	}
	return nil
}

func (f *fixed) Output() [][]byte {
	if len(f.say) == 0 {
		return nil
	}
	return [][]byte{f.say}
}

func (f *fixed) Sent(n int) { f.say = f.say[n:] }

// What a stream has to say when its port is closed still arrives, and the
// other side sees an end in good order.
func TestCloseSaysLastWord(t *testing.T) {
	each(t, func(t *testing.T, l *Loop, client, server net.Conn) {
		s := newFixed("")
		p := add(t, l, server, s)
		on(t, l, func() {
			s.say = []byte("goodbye")
			p.Close()
			p.Close()
		})
		got, err := io.ReadAll(client)
		if string(got) != "goodbye" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if err := within(t, "end", s.closed); err != nil {
			t.Error(err)
		}
		on(t, l, func() { p.Close(); p.Flush(); p.Kick() }) // nothing happens
		if len(s.closed) != 0 {
			t.Error("closed twice")
		}
	})
}

// An error of the stream ends the connection, after what it has to say; io.EOF
// means that it has ended well.
func TestReceivedEnds(t *testing.T) {
	broken := errors.New("bad magic")
	for _, c := range []struct{ give, want error }{{broken, broken}, {io.EOF, nil}} {
		each(t, func(t *testing.T, l *Loop, client, server net.Conn) {
			s := newFixed("")
			s.turns = func(int) error {
				s.say = []byte("refused")
				return c.give
			}
			add(t, l, server, s)
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(client)
			if string(got) != "refused" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			if err := within(t, "end", s.closed); err != c.want {
				t.Errorf("told %v, want %v", err, c.want)
			}
		})
	}
}

// Without room nothing is read, and the loop sleeps even though the other side
// has hung up; with room all comes, and then the end.
func TestNoRoom(t *testing.T) {
	for _, k := range kinds {
		for _, network := range []string{"unix", "tcp"} {
			t.Run(k.name+"/"+network, func(t *testing.T) {
				core := &idleCore{}
				l := start(t, k.o, core)
				client, server := connect(t, network, 0)
				s := newFixed("")
				s.deaf = true
				received := 0
				s.turns = func(n int) error { received += n; return nil }
				p := add(t, l, server, s)
				if _, err := client.Write(make([]byte, 10_000)); err != nil {
					t.Fatal(err)
				}
				client.Close()

				before := 0
				on(t, l, func() { before = core.turns })
				timer := make(chan struct{})
				time.AfterFunc(50*time.Millisecond, func() { close(timer) })
				within(t, "timer", timer)
				on(t, l, func() {
					if n := core.turns - before; n > 20 {
						t.Errorf("%d turns with nothing to do", n)
					}
					if received > 0 || len(s.closed) > 0 {
						t.Errorf("received %d, closed %d without room", received, len(s.closed))
					}
					s.deaf = false
					p.Kick()
				})
				if err := within(t, "end", s.closed); err != nil || received != 10_000 {
					t.Errorf("received %d, %v", received, err)
				}
			})
		}
	}
}

// A connection that cannot be written is read to its end, for the last word of
// the other side, and then ends once, with an error.
func TestBrokenIsReadToItsEnd(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			l := start(t, k.o, &idleCore{})
			client, server := connect(t, "unix", 0)
			s := newFixed("")
			s.deaf = true
			var got bytes.Buffer
			s.turns = func(n int) error { got.Write(s.room[:n]); return nil }
			add(t, l, server, s)
			if _, err := client.Write([]byte("last word")); err != nil {
				t.Fatal(err)
			}
			client.Close()
			on(t, l, func() {
				s.say = make([]byte, 1<<20)
				s.deaf = false
			})
			err := within(t, "end", s.closed)
			if got.String() != "last word" {
				t.Errorf("received %q", got.String())
			}
			if k.o.Portable {
				return // which of reader and writer ends first is open there
			}
			if err == nil {
				t.Error("told of a good end though output was left")
			}
		})
	}
}

// Flush sends at once, before the turn's end.
func TestFlushIsNow(t *testing.T) {
	each(t, func(t *testing.T, l *Loop, client, server net.Conn) {
		s := newFixed("")
		p := add(t, l, server, s)
		arrived := make(chan error, 1)
		go func() {
			b := make([]byte, 3)
			_, err := io.ReadFull(client, b)
			arrived <- err
		}()
		on(t, l, func() {
			s.say = []byte("now")
			p.Flush()
			if err := within(t, "bytes", arrived); err != nil {
				t.Error(err)
			}
		})
	})
}

// Closing the port from each callback, and stopping the loop with open ports,
// tells the stream once.
func TestCloseFromCallbacks(t *testing.T) {
	each(t, func(t *testing.T, l *Loop, client, server net.Conn) {
		s := newFixed("")
		p := add(t, l, server, s)
		on(t, l, func() {
			s.turns = func(int) error { p.Close(); return errors.New("later reasons do not count") }
		})
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := within(t, "end", s.closed); err != nil {
			t.Error(err)
		}
	})
}

func TestStopClosesPorts(t *testing.T) {
	for _, k := range kinds {
		for _, tr := range transports {
			t.Run(k.name+"/"+tr.name, func(t *testing.T) {
				client, server := tr.pair(t)
				ctx, cancel := context.WithCancel(context.Background())
				l := New(k.o)
				s := newFixed("bye")
				if _, err := l.Add(server, s); err != nil { // allowed before Run
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- l.Run(ctx, &idleCore{}) }()
				b := make([]byte, 3)
				if _, err := io.ReadFull(client, b); err != nil {
					t.Fatal(err)
				}
				cancel()
				if err := within(t, "end of Run", ended); err != nil {
					t.Error(err)
				}
				if err := within(t, "end", s.closed); err != ErrStopped {
					t.Errorf("told %v", err)
				}
				if l.Post(func() {}) {
					t.Error("a post after the end was accepted")
				}
				if _, err := l.Add(server, s); !errors.Is(err, ErrStopped) {
					t.Errorf("add after the end: %v", err)
				}
			})
		}
	}
}
