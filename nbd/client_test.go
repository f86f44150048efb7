// SPDX-License-Identifier: Apache-2.0

package nbd_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/nbd/nbdtest"
)

func TestClientCommands(t *testing.T) {
	s, socket := startServer(t, nbd.HandshakeConfig{})
	c := dial(t, socket)
	if c.Size() != testSize || c.Flags()&nbd.FlagSendFastZeroes == 0 || c.Contexts() != block.ContextAllocation|block.ContextDirty {
		t.Errorf("size %d, flags %#x, contexts %b", c.Size(), c.Flags(), c.Contexts())
	}
	data := bytes.Repeat([]byte{3}, 300<<10)
	got := make([]byte, len(data)+200<<10)
	steps := []struct {
		name string
		err  error
	}{
		{"write", c.WriteAt(data, 100, block.FUA)},
		{"flush", c.Flush()},
		{"trim", c.Trim(100, 4096, 0)},
		{"zeroes", c.WriteZeroes(8192, 4096, block.FUA|block.NoHole)},
		{"cache", c.Cache(0, testSize)},
		{"read", c.ReadAt(got, 0)},
	}
	for _, step := range steps {
		if step.err != nil {
			t.Errorf("%s: %v", step.name, step.err)
		}
	}
	s.Do(func(e *nbdtest.Engine) {
		if !bytes.Equal(got, e.Data[:len(got)]) || e.Data[5000] != 3 || e.Data[9000] != 0 {
			t.Error("what was read is not what is there")
		}
		if e.Flushes() != 3 {
			t.Errorf("%d flushes", e.Flushes())
		}
	})
	allocation, dirty, err := c.BlockStatus(0, 16384, 0)
	hole, data4K := block.Extent{Length: 4096, Flags: block.ExtentHole | block.ExtentZero}, block.Extent{Length: 4096}
	if err != nil || !slices.Equal(allocation, []block.Extent{hole, data4K, hole, data4K}) {
		t.Errorf("allocation: %v %v", allocation, err)
	}
	if !slices.Equal(dirty, []block.Extent{{Length: 12288}, {Length: 4096, Flags: block.ExtentDirty}}) {
		t.Errorf("dirty: %v", dirty)
	}
	if allocation, _, err := c.BlockStatus(0, 16384, block.ReqOne); err != nil || !slices.Equal(allocation, []block.Extent{hole}) {
		t.Errorf("status of one: %v %v", allocation, err)
	}
	if err := c.ReadAt(got, testSize-1); !errors.Is(err, block.Invalid) || !strings.Contains(err.Error(), "beyond the end") {
		t.Errorf("read beyond the end: %v", err)
	}
	if err := c.WriteAt(data, testSize-1, 0); !errors.Is(err, block.NoSpace) {
		t.Errorf("write beyond the end: %v", err)
	}
	if err := c.Trim(-1, 1, 0); !errors.Is(err, block.Invalid) {
		t.Errorf("trim at -1: %v", err)
	}
	s.Do(func(e *nbdtest.Engine) {
		e.Fail = func(r *block.Request) block.Status { return block.IOError }
	})
	if err := c.ReadAt(got, 0); !errors.Is(err, block.IOError) {
		t.Errorf("failed read: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Flush(); !errors.Is(err, nbd.ErrClientClosed) {
		t.Errorf("after close: %v", err)
	}
}

// TestClientConcurrent: many goroutines, each with a range of its own, and
// completions in random order.
func TestClientConcurrent(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s, socket := startServer(t, nbd.HandshakeConfig{})
	s.Do(func(e *nbdtest.Engine) { e.Hold = true })
	c := dial(t, socket)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		rng := rand.New(rand.NewPCG(seed, 0))
		for {
			select {
			case <-stop:
				return
			default:
				s.Do(func(e *nbdtest.Engine) {
					for n := len(e.Held()); n > 0; n-- {
						e.Release(rng.IntN(n))
					}
				})
				runtime.Gosched()
			}
		}
	}()
	const workers, span = 32, testSize / 32
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w+1)))
			model, got := make([]byte, span), make([]byte, span)
			base := int64(w) * span
			for range 20 {
				from := rng.IntN(span - 1)
				to := from + 1 + rng.IntN(span-from)
				switch rng.IntN(4) {
				case 0, 1:
					for i := from; i < to; i++ {
						model[i] = byte(rng.Uint32())
					}
					if err := c.WriteAt(model[from:to], base+int64(from), 0); err != nil {
						t.Errorf("write: %v", err)
					}
				case 2:
					clear(model[from:to])
					if err := c.WriteZeroes(base+int64(from), int64(to-from), 0); err != nil {
						t.Errorf("zeroes: %v", err)
					}
				case 3:
					if err := c.ReadAt(got[from:to], base+int64(from)); err != nil || !bytes.Equal(got[from:to], model[from:to]) {
						t.Errorf("read of %d bytes at %d: %v", to-from, base+int64(from), err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	<-stopped
}

func TestClientLosesServer(t *testing.T) {
	s, socket := startServer(t, nbd.HandshakeConfig{})
	s.Do(func(e *nbdtest.Engine) { e.Hold = true })
	c := dial(t, socket)
	errs := make(chan error, 50)
	for range cap(errs) {
		go func() { errs <- c.WriteAt(make([]byte, 4096), 0, 0) }()
	}
	for held := 0; held < cap(errs); {
		s.Do(func(e *nbdtest.Engine) { held = len(e.Held()) })
	}
	s.Close()
	for range cap(errs) {
		if err := <-errs; err == nil || !strings.Contains(err.Error(), "closed") && !strings.Contains(err.Error(), "reset") {
			t.Errorf("write ended with %v", err)
		}
	}
	// The engine may complete later what it had.
	s.Do(func(e *nbdtest.Engine) {
		for len(e.Held()) > 0 {
			e.Release(0)
		}
	})
}

func TestClientShutdown(t *testing.T) {
	s, socket := startServer(t, nbd.HandshakeConfig{})
	c := dial(t, socket)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	if err := c.WriteAt([]byte{1}, 0, 0); !errors.Is(err, block.ShuttingDown) || !strings.Contains(err.Error(), "serves no longer") {
		t.Errorf("write after shutdown: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	_, socket := startServer(t, nbd.HandshakeConfig{})
	tests := []struct{ uri, want string }{
		{"http://localhost/", "is not for NBD"},
		{"nbd:///vol", "names no host"},
		{"nbd+unix:///vol", "names no socket"},
		{"nbd+unix:///vol?socket=" + socket + "x", "connect:"},
		{"nbd+unix:///nope?socket=" + socket, "no export has this name"},
		{"nbds+unix:///vol?socket=" + socket, "this server has no TLS here"},
		{"nbd://%zz/", "parse URI"},
	}
	for _, test := range tests {
		c, err := nbd.Dial(t.Context(), test.uri, nil)
		if err == nil {
			_ = c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.uri, err)
		}
	}
	var r *nbd.Refusal
	if _, err := nbd.Dial(t.Context(), "nbd+unix:///nope?socket="+socket, nil); !errors.As(err, &r) || r.Reply != nbd.ReplyUnknown {
		t.Errorf("refusal is %v", err)
	}
}

func TestClientTLS(t *testing.T) {
	dir := t.TempDir()
	cfg := certificates(t, dir)
	_, socket := startServer(t, nbd.HandshakeConfig{TLS: cfg, ForceTLS: true})
	client := &tls.Config{RootCAs: cfg.ClientCAs}
	if _, err := nbd.Dial(t.Context(), "nbd+unix:///vol?socket="+socket, client); err == nil || !strings.Contains(err.Error(), "only TLS") {
		t.Errorf("without TLS: %v", err)
	}
	cfg.ClientAuth = tls.NoClientCert
	c, err := nbd.Dial(t.Context(), "nbds+unix://localhost/vol?socket="+socket, client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want, got := bytes.Repeat([]byte{1, 2, 3, 4}, 100000), make([]byte, 400000)
	if err := errors.Join(c.WriteAt(want, 5, 0), c.ReadAt(got, 5)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("through TLS: %v", err)
	}
}

// TestStartTLSForgets: what was agreed in the clear does not hold afterwards.
func TestStartTLSForgets(t *testing.T) {
	cfg := certificates(t, t.TempDir())
	cfg.ClientAuth = tls.NoClientCert
	client, server := net.Pipe()
	defer client.Close()
	type result struct {
		n   *nbd.Negotiated
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := nbd.Handshake(t.Context(), server, nbd.HandshakeConfig{Exports: testExports(), TLS: cfg})
		done <- result{n, err}
	}()
	say := func(c net.Conn, id uint32, data string, reply int) {
		b := binary.BigEndian.AppendUint32([]byte("IHAVEOPT"), id)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, reply)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(client, make([]byte, 18)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte{0, 0, 0, 3}); err != nil {
		t.Fatal(err)
	}
	say(client, 8, "", 20) // structured replies
	say(client, 10, "\x00\x00\x00\x03vol\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation", 20+4+15+20)
	say(client, 5, "\x00", 20+len("option takes no data")) // STARTTLS with data is refused
	say(client, 5, "", 20)
	secure := tls.Client(client, &tls.Config{RootCAs: cfg.ClientCAs, ServerName: "localhost"})
	say(secure, 5, "", 20+len("TLS is already on"))
	say(secure, 7, "\x00\x00\x00\x03vol\x00\x00", 20+12+20)
	r := <-done
	if r.err != nil || r.n.Structured || r.n.Contexts != 0 {
		t.Fatalf("%v, %+v", r.err, r.n)
	}
	if _, ok := r.n.Conn.(*tls.Conn); !ok {
		t.Errorf("goes on with a %T", r.n.Conn)
	}
}
