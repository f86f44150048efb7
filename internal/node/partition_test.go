// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/config"
)

// gate stands between a node and its peer, and can be shut.
type gate struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
}

func newGate(t *testing.T, to string) *gate {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, to: to, conns: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { g.pass(in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		g.set(true)
		wg.Wait()
	})
	return g
}

// hold keeps a connection while the gate is open, and reports whether it is.
func (g *gate) hold(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		c.Close()
		return false
	}
	g.conns[c] = true
	return true
}

func (g *gate) pass(in net.Conn) {
	if !g.hold(in) {
		return
	}
	out, err := net.Dial("tcp", g.to)
	if err != nil || !g.hold(out) {
		in.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { io.Copy(out, in); out.Close() })
	both.Go(func() { io.Copy(in, out); in.Close() })
	both.Wait()
}

// set shuts the gate, which cuts what passes, or opens it.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for c := range g.conns {
		c.Close()
	}
	clear(g.conns)
}

// Both nodes live and reach the witness, but not each other; the operator forces
// the one that does not serve. When they meet again it is a split, and it ends as
// he says.
func TestResolveAfterAPartition(t *testing.T) {
	l := newLab(t, "16MiB")
	real := l.cfg
	l.stop("alpha")
	l.stop("beta")
	gates := make(map[string]*gate)
	configs := make(map[string]*config.Config)
	for _, name := range real.NodeNames() {
		peer := *real.Peer(name)
		gates[name] = newGate(t, peer.Address[0].String())
		peer.Address = append(peer.Address[:0:0], gates[name].listener.Addr().(*net.TCPAddr).AddrPort())
		c := *real
		c.Nodes = append([]config.Node(nil), real.Nodes...)
		*c.Peer(name) = peer
		configs[name] = &c
	}
	for _, name := range real.NodeNames() {
		l.cfg = configs[name]
		l.start(name)
	}
	l.pair()
	l.put("alpha", 0, fill(1, 1<<20))

	for _, g := range gates {
		g.set(true)
	}
	l.waitFor("alpha", control.Alone)
	l.put("alpha", 0, fill(2, 3*block.Size))
	if err := l.act("beta", "primforce"); err != nil {
		t.Fatal(err)
	}
	l.put("beta", 2*block.Size, fill(3, 2*block.Size))
	l.waitFor("alpha", control.Wait) // the record names beta
	for _, g := range gates {
		g.set(false)
	}
	l.until("both see the split", func() bool { return l.volume("alpha").status.Load().Split && l.volume("beta").status.Load().Split })

	split := l.preview("beta")
	if a, b := split.Side("alpha"), split.Side("beta"); a.Blocks != 3 || b.Blocks != 2 || a.Apart.IsZero() || b.Apart.IsZero() {
		t.Errorf("alpha %+v, beta %+v", a, b)
	}
	before, err := os.ReadFile(filepath.Join(l.dir, "alpha.img"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.asks("beta", control.Action{Verb: "resolve", Volume: "data", Args: map[string]string{
		"keep": "beta", "generation": split.Side("alpha").Generation}}); err != nil {
		t.Fatal(err)
	}
	l.waitFor("alpha", control.Secondary)
	l.waitFor("beta", control.Primary)
	l.equal()
	want := append(fill(1, 1<<20)[:2*block.Size:2*block.Size], fill(3, 2*block.Size)...)
	after, err := os.ReadFile(filepath.Join(l.dir, "alpha.img"))
	if err != nil || !bytes.Equal(after[:len(want)], want) {
		t.Errorf("the keeper's writes are not on alpha: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(l.dir, "alpha", "split-data-*.twinbd"))
	if err != nil || len(files) != 1 {
		t.Fatalf("saved files: %v, %v", files, err)
	}
	image := filepath.Join(l.dir, "image")
	if err := os.WriteFile(image, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ExtractSplit(files[0], image); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got[:3*block.Size], before[:3*block.Size]) || !bytes.Equal(got[3*block.Size:], make([]byte, 16<<20-3*block.Size)) {
		t.Errorf("what was saved is not what alpha had written alone: %v", err)
	}
}
