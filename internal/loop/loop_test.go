// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// kinds are the ways to wait; every test of ports runs on each.
var kinds = []struct {
	name string
	o    Options
}{
	{"native", Options{}},
	{"native without spin", Options{Spin: -1}},
	{"portable", Options{Portable: true}},
}

// idleCore is a core that only counts.
type idleCore struct {
	turns int
	turn  func(now time.Duration)
	due   func() time.Duration
}

func (c *idleCore) Turn(now time.Duration) {
	c.turns++
	if c.turn != nil {
		c.turn(now)
	}
}

func (c *idleCore) Deadline() time.Duration {
	if c.due != nil {
		return c.due()
	}
	return math.MaxInt64
}

// start runs a loop until the test ends.
func start(t testing.TB, o Options, core Core) *Loop {
	t.Helper()
	l := New(o)
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background(), core) }()
	t.Cleanup(func() {
		l.Stop()
		if err := within(t, "the loop's end", ended); err != nil {
			t.Error(err)
		}
	})
	return l
}

// within returns what c gives, and fails the test when that takes too long.
func within[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		stacks := make([]byte, 1<<20)
		t.Fatalf("no %s in 20 s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		panic("unreachable")
	}
}

// on runs f on the loop's thread and waits for it.
func on(t testing.TB, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { f(); close(done) }) {
		t.Fatal("the loop has ended")
	}
	within(t, "turn", done)
}

func add(t testing.TB, l *Loop, conn net.Conn, s Stream) *Port {
	t.Helper()
	var p *Port
	var err error
	on(t, l, func() { p, err = l.Add(conn, s) })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// echo sends back what it receives, through a bounded store, in random pieces.
type echo struct {
	rng    *mrand.Rand
	store  []byte // received and not sent
	limit  int
	room   []byte
	out    [][]byte
	closed chan error // what Closed was told; twice would block or show
}

func newEcho(seed uint64, limit int) *echo {
	return &echo{rng: mrand.New(mrand.NewPCG(seed, 1)), limit: limit, closed: make(chan error, 2)}
}

func (e *echo) Room() []byte {
	free := e.limit - len(e.store)
	if free <= 0 {
		return nil
	}
	n := 1 + e.rng.IntN(free)
	if cap(e.room) < n {
		e.room = make([]byte, n)
	}
	e.room = e.room[:n]
	return e.room
}

func (e *echo) Received(n int) error {
	e.store = append(e.store, e.room[:n]...)
	return nil
}

func (e *echo) Output() [][]byte {
	if len(e.out) > 0 {
		return e.out
	}
	// The copy shows a loop that reads what it has counted as sent.
	rest := bytes.Clone(e.store)
	for len(rest) > 0 && len(e.out) < 3000 {
		n := 1 + e.rng.IntN(min(len(rest), 1+e.rng.IntN(40_000)))
		e.out = append(e.out, rest[:n])
		rest = rest[n:]
	}
	return e.out
}

func (e *echo) Sent(n int) {
	e.store = e.store[n:]
	for n > 0 {
		m := min(n, len(e.out[0]))
		clear(e.out[0][:m])
		e.out[0] = e.out[0][m:]
		if n -= m; len(e.out[0]) == 0 {
			e.out = e.out[1:]
		}
	}
}

func (e *echo) Closed(err error) { e.closed <- err }

// transports are the connections that a loop may be given: a pair, of which
// the second is the loop's.
var transports = []struct {
	name string
	pair func(t testing.TB) (client, server net.Conn)
}{
	{"unix", func(t testing.TB) (net.Conn, net.Conn) { return connect(t, "unix", 0) }},
	{"unix, tiny buffers", func(t testing.TB) (net.Conn, net.Conn) { return connect(t, "unix", 1) }},
	{"tcp", func(t testing.TB) (net.Conn, net.Conn) { return connect(t, "tcp", 0) }},
	{"tcp, tiny buffers", func(t testing.TB) (net.Conn, net.Conn) { return connect(t, "tcp", 1) }},
	{"wrapped", func(t testing.TB) (net.Conn, net.Conn) {
		c, s := connect(t, "tcp", 0)
		return c, Wrap(s)
	}},
	{"pipe", func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() }},
	{"tls 1.3", func(t testing.TB) (net.Conn, net.Conn) { return secure(t, tls.VersionTLS13, 0, true) }},
	{"tls 1.3, tiny buffers", func(t testing.TB) (net.Conn, net.Conn) { return secure(t, tls.VersionTLS13, 1, true) }},
	{"tls 1.2", func(t testing.TB) (net.Conn, net.Conn) { return secure(t, tls.VersionTLS12, 0, true) }},
	{"tls 1.3 as client", func(t testing.TB) (net.Conn, net.Conn) { return secure(t, tls.VersionTLS13, 0, false) }},
	{"tls that no shim carries", func(t testing.TB) (net.Conn, net.Conn) {
		c, s := connect(t, "tcp", 0)
		config := testConfig(t)
		client, server := tls.Client(c, config), tls.Server(s, config)
		shake(t, client, server)
		return client, server
	}},
}

// connect returns a connected pair; buffer is the wish for the size of the
// sockets' buffers, 0 for the system's.
func connect(t testing.TB, network string, buffer int) (client, server net.Conn) {
	t.Helper()
	ln := listen(t, network)
	defer ln.Close()
	var err error
	client, err = net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if buffer > 0 {
		for _, c := range []net.Conn{client, server} {
			shrink(t, c, network, buffer)
		}
	}
	return client, server
}

func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func shrink(t testing.TB, conn net.Conn, network string, buffer int) {
	t.Helper()
	b := conn.(interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	})
	if err := b.SetWriteBuffer(buffer); err != nil {
		t.Fatal(err)
	}
	// A TCP window below one loopback segment would only wait for TCP's timers.
	if network == "unix" {
		if err := b.SetReadBuffer(buffer); err != nil {
			t.Fatal(err)
		}
	}
}

// secure returns a TLS pair of which the second side has a shim; it is the
// server when serves is set.
func secure(t testing.TB, version uint16, buffer int, serves bool) (net.Conn, net.Conn) {
	t.Helper()
	c, s := connect(t, "tcp", buffer)
	config := testConfig(t)
	config.MinVersion, config.MaxVersion = version, version
	type result struct {
		conn *tls.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := Secure(context.Background(), s, config, serves)
		done <- result{conn, err}
	}()
	far := tls.Client(c, config)
	if !serves {
		far = tls.Server(c, config)
	}
	if err := far.Handshake(); err != nil {
		t.Fatal(err)
	}
	r := within(t, "handshake", done)
	if r.err != nil {
		t.Fatal(r.err)
	}
	return far, r.conn
}

func shake(t testing.TB, client, server *tls.Conn) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "handshake", done); err != nil {
		t.Fatal(err)
	}
}

var testCertificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// testConfig serves both sides; who is who is not the matter here.
func testConfig(t testing.TB) *tls.Config {
	t.Helper()
	c, err := testCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}, InsecureSkipVerify: true}
}

// each runs f on every kind of loop and every transport.
func each(t *testing.T, f func(t *testing.T, l *Loop, client, server net.Conn)) {
	for _, k := range kinds {
		for _, tr := range transports {
			t.Run(k.name+"/"+tr.name, func(t *testing.T) {
				client, server := tr.pair(t)
				l := start(t, k.o, &idleCore{})
				f(t, l, client, server)
			})
		}
	}
}
