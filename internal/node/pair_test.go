// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/freeport"
	"github.com/twinbd/twinbd/nbd"
)

// lab is two nodes and a witness in this process.
type lab struct {
	t     testing.TB
	dir   string
	cfg   *config.Config
	nodes map[string]*running
	wall  map[string]func() time.Time // of nodes whose clocks are wrong

	devices map[string]func() (deviceKernel, error) // the kernels' drivers, of nodes that have one
}

type running struct {
	node *Node
	stop context.CancelFunc
	done chan error
}

func newLab(t testing.TB, size string) *lab { return newPacedLab(t, size, "fast") }

func newPacedLab(t testing.TB, size, pace string) *lab { return newLabOf(t, size, pace, "", nil) }

// newLabOf adds settings of the volume.
func newLabOf(t testing.TB, size, pace, settings string, devices map[string]func() (deviceKernel, error)) *lab {
	dir, err := os.MkdirTemp("", "twinbd") // short: a socket's path must fit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	witness := startWitness(t)
	alpha, beta := freePorts(t)
	text := fmt.Sprintf(`
cluster = "lab"
[node.alpha]
address = [%[1]q]
state = "%[3]s/alpha"
run = "%[3]s/alpha"
[node.beta]
address = [%[2]q]
state = "%[3]s/beta"
run = "%[3]s/beta"
[witness]
address = [%[4]q]
[tls]
insecure = true
[service.pg]
pace = %[6]q
[service.pg.volume.data]
size = %[5]q
disk = "%[3]s/{node}.img"
export = "unix:%[3]s/{node}.sock"
%[7]s
`, alpha, beta, dir, witness, size, pace, settings)
	cfg, err := config.Parse("lab.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir, cfg: cfg, nodes: make(map[string]*running), devices: devices}
	for _, name := range cfg.NodeNames() {
		if err := Create(t.Context(), cfg, cfg.Volume("data"), name, CreateOptions{Blank: true}, nil); err != nil {
			t.Fatal(err)
		}
		l.start(name)
	}
	t.Cleanup(func() {
		for name := range l.nodes {
			l.stop(name)
		}
	})
	return l
}

func startWitness(t testing.TB) string {
	dir, err := failover.OpenDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	register, err := failover.OpenRegister(dir, failover.RegisterConfig{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- (&failover.Server{Register: register, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, listener)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		register.Close()
		dir.Close()
	})
	return listener.Addr().String()
}

// freePorts returns two addresses that nobody has.
func freePorts(t testing.TB) (a, b string) {
	ports, err := freeport.Find(2)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
}

func (l *lab) start(name string) { l.startAfter(name, nil) }

// startAfter starts a node that goes on with what the process before it left.
func (l *lab) startAfter(name string, left *Legacy) {
	l.t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{l.t, name}, nil))
	n, err := Open(l.cfg, name, Options{Log: log, Wall: l.wall[name], Legacy: left, devices: l.devices[name]})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{node: n, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- n.Run(ctx) }()
	l.nodes[name] = r
}

func (l *lab) stop(name string) {
	l.t.Helper()
	r := l.nodes[name]
	delete(l.nodes, name)
	r.stop()
	if err := <-r.done; err != nil {
		l.t.Errorf("%s ended: %v", name, err)
	}
}

// testWriter sends a node's log where the test's goes.
type testWriter struct {
	t    testing.TB
	name string
}

func (w testWriter) Write(p []byte) (int, error) {
	switch w.t.(type) {
	case *testing.B, *testing.F: // the one would be slowed down, the other must not be used meanwhile
	default:
		w.t.Logf("%s: %s", w.name, bytes.TrimSpace(p))
	}
	return len(p), nil
}

// waitFor waits until a node is in a state.
func (l *lab) waitFor(name string, state control.State) {
	l.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		st := l.nodes[name].node.Status().Services[0]
		if st.State == state && (state != control.Secondary || st.UpToDate) {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s is %s (%s), not %s", name, st.State, st.Reason, state)
		}
	}
}

func (l *lab) act(name, verb string) error {
	return l.nodes[name].node.Act(l.t.Context(), control.Action{Verb: verb, Service: "pg", Who: "test"}, func(control.Progress) {})
}

func (l *lab) prim(name string) {
	l.t.Helper()
	if err := l.act(name, "prim"); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) dial(name string) *nbd.Client {
	l.t.Helper()
	c, err := nbd.Dial(l.t.Context(), "nbd+unix:///data?socket="+filepath.Join(l.dir, name+".sock"), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// equal asserts that both disks hold the same bytes.
func (l *lab) equal() {
	l.t.Helper()
	a, err := os.ReadFile(filepath.Join(l.dir, "alpha.img"))
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(l.dir, "beta.img"))
	if err != nil {
		l.t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		l.t.Fatal("the disks differ")
	}
}

// TestPairTakesTurns goes through the life of a pair: first primary, secondary
// away and back, primary away, stale node refused, service back by itself.
func TestPairTakesTurns(t *testing.T) {
	l := newLab(t, "16MiB")
	l.prim("alpha")
	l.waitFor("beta", control.Secondary)
	l.waitFor("alpha", control.Primary)
	client := l.dial("alpha")
	data := make([]byte, 1<<20)
	fill := rand.NewChaCha8([32]byte{1})
	io.ReadFull(fill, data)
	write := func(offset int64) {
		t.Helper()
		if err := client.WriteAt(data, offset, 0); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	if _, err := nbd.Dial(t.Context(), "nbd+unix:///data?socket="+filepath.Join(l.dir, "beta.sock"), nil); err == nil ||
		!strings.Contains(err.Error(), "alpha serves this volume") {
		t.Fatalf("the secondary lets a client in: %v", err)
	}

	l.stop("beta")
	write(4 << 20)
	l.waitFor("alpha", control.Alone)
	l.start("beta")
	l.waitFor("beta", control.Secondary)
	l.waitFor("alpha", control.Primary)
	if err := client.Flush(); err != nil {
		t.Fatal(err)
	}
	l.equal()

	client.Close()
	l.stop("alpha") // hands over
	l.waitFor("beta", control.Alone)
	client = l.dial("beta")
	got := make([]byte, len(data))
	if err := client.ReadAt(got, 4<<20); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("beta does not have what alpha acknowledged: %v", err)
	}
	write(8 << 20)
	client.Close()
	l.stop("beta")

	l.start("alpha")
	err := l.act("alpha", "prim")
	if err == nil || !strings.Contains(err.Error(), "epoch") {
		t.Fatalf("a stale node becomes primary: %v", err)
	}
	l.start("beta")
	l.waitFor("beta", control.Primary) // by itself: the record says that nobody else has its data
	l.waitFor("alpha", control.Secondary)
	l.equal()
}
