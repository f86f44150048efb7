// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

// network is a listener in memory.
type network struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newNetwork() *network { return &network{conns: make(chan net.Conn), done: make(chan struct{})} }

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { n.once.Do(func() { close(n.done) }); return nil }
func (n *network) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case n.conns <- far:
		return near, nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve runs a server on the listener until the returned function is called.
func serve(t *testing.T, s *Server, l net.Listener) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// node returns a client in that name.
func node(t *testing.T, name string, change ...func(*ClientConfig)) *Client {
	t.Helper()
	config := ClientConfig{Cluster: "c", From: name, Timeout: 10 * time.Second}
	for _, f := range change {
		f(&config)
	}
	c, err := NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func at(addresses ...string) func(*ClientConfig) {
	return func(c *ClientConfig) { c.Addresses = addresses }
}

func over(n *network) func(*ClientConfig) {
	return func(c *ClientConfig) { c.Addresses, c.Dial = []string{"memory"}, n.dial }
}

// The same conversation in the same process and over a network.
func TestWitness(t *testing.T) {
	overNetwork := func(t *testing.T, r *Register) (a, b Witness) {
		l := listen(t, "127.0.0.1:0")
		serve(t, &Server{Register: r, Log: quiet}, l)
		return node(t, "a", at(l.Addr().String())), node(t, "b", at(l.Addr().String()))
	}
	local := func(t *testing.T, r *Register) (a, b Witness) { return NewLocal(r, "c", "a"), NewLocal(r, "c", "b") }
	for name, connect := range map[string]func(*testing.T, *Register) (Witness, Witness){"network": overNetwork, "local": local} {
		t.Run(name, func(t *testing.T) {
			disk := failovertest.NewDisk(1)
			a, b := connect(t, openRegister(t, disk))
			ctx := t.Context()
			seen, err := a.Read(ctx, Query{Service: "s", Timeout: timeout})
			if err != nil || !seen.Record.Empty() {
				t.Fatalf("%+v, %v", seen, err)
			}
			q := Request{Service: "s", Holder: "a", Mode: Alone, Operator: true, Token: NewToken(), Seen: seen.Stamp, Timeout: timeout}
			made, err := a.Change(ctx, q)
			if err != nil || !made.Granted || made.Record.Holder != "a" {
				t.Fatalf("%+v, %v", made, err)
			}
			if again, err := a.Change(ctx, q); err != nil || !again.Granted || again.Record != made.Record {
				t.Errorf("repeat: %+v, %v", again, err)
			}
			seen, err = b.Read(ctx, Query{Service: "s", Knows: View{1, "a", Alone}, Timeout: timeout})
			if err != nil || seen.Record != made.Record {
				t.Errorf("b reads %+v, %v", seen, err)
			}
			refused, err := b.Change(ctx, Request{Service: "s", Replaces: 1, Holder: "b", Mode: Alone, Token: NewToken(), Seen: seen.Stamp, Timeout: timeout})
			if err != nil || refused.Granted || !strings.Contains(refused.Reason, "epoch 1, held by a (alone)") {
				t.Errorf("b asks: %+v, %v", refused, err)
			}
			if _, err := b.Read(ctx, Query{Service: "../s", Timeout: timeout}); !errors.Is(err, ErrBadRequest) {
				t.Errorf("bad name: %v", err)
			}
			disk.FailSyncAt(1)
			q = Request{Service: "s", Replaces: 1, Holder: "a", Mode: Pair, Token: NewToken(), Seen: seen.Stamp, Timeout: timeout}
			if answer, err := a.Change(ctx, q); !errors.Is(err, ErrUnusable) || answer != (Answer{}) {
				t.Errorf("failed flush: %+v, %v", answer, err)
			}
			if answer, err := b.Read(ctx, Query{Service: "s", Timeout: timeout}); !errors.Is(err, ErrUnusable) || answer != (Answer{}) {
				t.Errorf("after a failed flush: %+v, %v", answer, err)
			}
			if answer, err := b.Read(ctx, Query{Service: "other", Timeout: timeout}); err != nil || !answer.Record.Empty() {
				t.Errorf("another service: %+v, %v", answer, err)
			}
			ended, cancel := context.WithCancel(ctx)
			cancel()
			if _, err := a.Read(ended, Query{Service: "s", Timeout: timeout}); !errors.Is(err, context.Canceled) {
				t.Errorf("ended context: %v", err)
			}
		})
	}
}

// The server restarts on the same address; the client finds it again by itself,
// and the very request gets the same answer.
func TestServerRestart(t *testing.T) {
	disk := failovertest.NewDisk(1)
	l := listen(t, "127.0.0.1:0")
	address := l.Addr().String()
	stop := serve(t, &Server{Register: openRegister(t, disk), Log: quiet}, l)
	a := node(t, "a", at(address))
	seen, err := a.Read(t.Context(), Query{Service: "s", Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	q := Request{Service: "s", Holder: "a", Mode: Alone, Operator: true, Token: NewToken(), Seen: seen.Stamp, Timeout: timeout}
	made, err := a.Change(t.Context(), q)
	if err != nil || !made.Granted {
		t.Fatalf("%+v, %v", made, err)
	}
	stop()
	if _, err := a.Read(t.Context(), Query{Service: "s", Timeout: timeout}); err == nil {
		t.Error("a witness that is down answered")
	}
	disk.PowerCycle()
	serve(t, &Server{Register: openRegister(t, disk), Log: quiet}, listen(t, address))
	again, err := a.Change(t.Context(), q)
	if err != nil || !again.Granted || again.Record != made.Record {
		t.Errorf("repeat after the restart: %+v, %v", again, err)
	}
}

// A kept connection that has died costs no call.
func TestClientReplacesDeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		serve(t, &Server{Register: openRegister(t, failovertest.NewDisk(1)), Log: quiet, IdleTimeout: time.Second}, n)
		a := node(t, "a", over(n))
		for range 3 {
			if _, err := a.Read(t.Context(), Query{Service: "s", Timeout: timeout}); err != nil {
				t.Error(err)
			}
			<-time.After(2 * time.Second) // the server hangs up
		}
	})
}

// Two clients ask for the same epoch; exactly one is granted.
func TestServerRace(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	r := openRegister(t, failovertest.NewDisk(1))
	serve(t, &Server{Register: r, Log: quiet}, l)
	change(t, r, first)
	change(t, r, ask(replaces(1), mode(Pair)))
	var answers [2]Answer
	var errs [2]error
	var both sync.WaitGroup
	for i, name := range []string{"a", "b"} {
		c := node(t, name, at(l.Addr().String()))
		both.Go(func() {
			var seen Answer
			if seen, errs[i] = c.Read(t.Context(), Query{Service: "s", Timeout: timeout}); errs[i] != nil {
				return
			}
			answers[i], errs[i] = c.Change(t.Context(),
				Request{Service: "s", Replaces: 2, Holder: name, Mode: Alone, Token: NewToken(), Seen: seen.Stamp, Timeout: timeout})
		})
	}
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if answers[0].Granted == answers[1].Granted {
		t.Errorf("%+v", answers)
	}
	if now := read(t, r).Record; now != answers[0].Record && now != answers[1].Record || now.Epoch != 3 {
		t.Errorf("the record is %v", now)
	}
}

// A stranger that says nothing, or stops in the middle, is closed in time.
func TestServerTimeouts(t *testing.T) {
	query := QueryFrame(2, says("a", View{}))
	for _, c := range []struct {
		name  string
		bytes []byte
		after time.Duration
	}{
		{"says nothing", nil, DefaultHelloTimeout},
		{"half a hello", HelloFrame(1, 1)[:10], DefaultHelloTimeout},
		{"a hello and nothing", HelloFrame(1, 1), DefaultIdleTimeout},
		{"half a query", append(HelloFrame(1, 1), query[:30]...), DefaultIdleTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				serve(t, &Server{Register: openRegister(t, failovertest.NewDisk(1)), Log: quiet}, n)
				start := time.Now()
				conn, err := n.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				go conn.Write(c.bytes)
				io.Copy(io.Discard, conn)
				if took := time.Since(start); took != c.after {
					t.Errorf("closed after %v, want %v", took, c.after)
				}
			})
		})
	}
}

// However many connect and say nothing, or say hello and nothing more, a node that
// asks is answered, and the one that has asked all the time stays connected.
func TestServerMakesRoomForNodes(t *testing.T) {
	for name, says := range map[string][]byte{"silent": nil, "hello and nothing": HelloFrame(1, 1)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				s := &Server{Register: openRegister(t, failovertest.NewDisk(1)), Log: quiet, MaxPerHost: 5}
				serve(t, s, n)
				var dials int
				a := node(t, "a", over(n), func(c *ClientConfig) {
					dial := c.Dial
					c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						dials++
						return dial(ctx, network, address)
					}
				})
				ask := func() {
					t.Helper()
					if _, err := a.Read(t.Context(), Query{Service: "s", Timeout: timeout}); err != nil {
						t.Errorf("a node was not answered: %v", err)
					}
				}
				ask()
				for i := range 1000 {
					conn, err := n.dial(t.Context(), "", "")
					if err != nil {
						t.Fatal(err)
					}
					go func() {
						conn.Write(says)
						io.Copy(io.Discard, conn)
						conn.Close()
					}()
					synctest.Wait()
					if i%3 == 0 {
						ask()
					}
				}
				if dials != 1 {
					t.Errorf("the node was sent away %d times", dials-1)
				}
				b := node(t, "b", over(n))
				if _, err := b.Read(t.Context(), Query{Service: "s", Timeout: timeout}); err != nil {
					t.Errorf("a node that came late was not answered: %v", err)
				}
			})
		})
	}
}

// converse sends bytes and returns all that comes back.
func converse(t *testing.T, s *Server, sent []byte) string {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	stop := serve(t, s, l)
	defer stop()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	conn.(*net.TCPConn).CloseWrite()
	back, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(back)
}

func TestServerRefuses(t *testing.T) {
	hello := HelloFrame(1, 1)
	for _, c := range []struct {
		name string
		sent []byte
		want string
	}{
		{"no common version", HelloFrame(2, 9), "the node speaks versions 2 to 9, the witness 1 to 1; hint: upgrade"},
		{"versions upside down", HelloFrame(3, 1), "malformed message: hello"},
		{"no hello", QueryFrame(1, says("a", View{})), "not a hello"},
		{"unknown message", append(hello, RawFrame(99, 2, nil)...), "type 99"},
		{"torn message", append(hello, RawFrame(3, 2, []byte("xx"))...), "malformed message: read"},
		{"bad name", append(hello, QueryFrame(2, saysOf("../../etc", "a", View{}))...), `"../../etc" cannot name a service`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Server{Register: openRegister(t, failovertest.NewDisk(1)), Log: quiet}
			if back := converse(t, s, c.sent); !strings.Contains(back, c.want) {
				t.Errorf("got %q, want %q", back, c.want)
			}
		})
	}
}

// A future node offers more versions, and what the hello says beyond is ignored.
func TestServerNegotiates(t *testing.T) {
	s := &Server{Register: openRegister(t, failovertest.NewDisk(1)), Log: quiet}
	back := converse(t, s, HelloFrame(1, 7))
	if !strings.HasSuffix(back, "\x00\x01") || len(back) != 26 {
		t.Errorf("got %q", back)
	}
}

func TestClientErrors(t *testing.T) {
	for _, c := range []struct {
		config ClientConfig
		want   string
	}{
		{ClientConfig{Cluster: "c", From: "a"}, "witness.address"},
		{ClientConfig{Cluster: "C", From: "a", Addresses: []string{"x"}}, "cannot name a cluster"},
		{ClientConfig{Cluster: "c", From: "", Addresses: []string{"x"}}, "cannot name a node"},
	} {
		if _, err := NewClient(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
}

// A witness that takes the connection and says nothing costs the call's time and
// no more; a second address is tried within it.
func TestClientDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, deaf := newNetwork(), newNetwork()
		serve(t, &Server{Register: openRegister(t, failovertest.NewDisk(1)), Log: quiet}, n)
		go func() {
			for {
				if _, err := deaf.Accept(); err != nil {
					return
				}
			}
		}()
		defer deaf.Close()
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "deaf" {
				return deaf.dial(ctx, network, address)
			}
			return n.dial(ctx, network, address)
		}
		with := func(addresses ...string) *Client {
			return node(t, "a", func(c *ClientConfig) { c.Addresses, c.Dial, c.Timeout = addresses, dial, time.Second })
		}
		start := time.Now()
		if _, err := with("deaf").Read(t.Context(), Query{Service: "s", Timeout: timeout}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deaf: %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
		start = time.Now()
		both := with("deaf", "good")
		if _, err := both.Read(t.Context(), Query{Service: "s", Timeout: timeout}); err != nil {
			t.Errorf("second address: %v", err)
		}
		if took := time.Since(start); took != time.Second/2 {
			t.Errorf("second address took %v", took)
		}

		closed := with("deaf")
		go func() { <-time.After(time.Second / 4); closed.Close() }()
		start = time.Now()
		if _, err := closed.Read(t.Context(), Query{Service: "s", Timeout: timeout}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		if took := time.Since(start); took != time.Second/4 {
			t.Errorf("close took %v", took)
		}
	})
}

// A stranger may send anything.
func FuzzServer(f *testing.F) {
	f.Add(HelloFrame(1, 1))
	f.Add(append(HelloFrame(1, 1), QueryFrame(2, says("a", View{}))...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	disk := failovertest.NewDisk(1)
	register, err := OpenRegister(disk, RegisterConfig{Log: quiet})
	if err != nil {
		f.Fatal(err)
	}
	n := newNetwork()
	ctx, cancel := context.WithCancel(context.Background())
	server := &Server{Register: register, Log: quiet}
	go server.Serve(ctx, n)
	f.Cleanup(cancel)
	f.Fuzz(func(t *testing.T, b []byte) {
		conn, err := n.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		go func() { conn.Write(b); conn.Close() }()
		io.Copy(io.Discard, conn)
		if register.Len() != 0 {
			t.Fatal("a service was made")
		}
	})
}
