// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// hangingDisk is a disk on page cache alone that can be made to hang: what it is
// asked then returns when it is released.
type hangingDisk struct {
	block.Disk
	gates [2]atomic.Pointer[chan struct{}] // of reads, of everything else
}

const (
	reads = iota
	changes
)

// hang holds calls of one kind from now on, until release is called.
func (d *hangingDisk) hang(kind int) (release func()) {
	gate := make(chan struct{})
	d.gates[kind].Store(&gate)
	return func() {
		if d.gates[kind].Swap(nil) != nil {
			close(gate)
		}
	}
}

func (d *hangingDisk) wait(kind int) {
	if gate := d.gates[kind].Load(); gate != nil {
		<-*gate
	}
}

func (d *hangingDisk) ReadAt(p []byte, offset int64) error {
	d.wait(reads)
	return d.Disk.ReadAt(p, offset)
}

func (d *hangingDisk) WriteAt(p []byte, offset int64) error {
	d.wait(changes)
	return d.Disk.WriteAt(p, offset)
}

func (d *hangingDisk) Sync() error {
	d.wait(changes)
	return nil
}

// newHangingLab is a lab with short timeouts whose disks can be made to hang,
// with alpha serving.
func newHangingLab(t *testing.T) (*lab, map[string]*hangingDisk) {
	l := newLab(t, "16MiB")
	l.stop("alpha")
	l.stop("beta")
	disks := make(map[string]*hangingDisk)
	l.cfg.Services[0].PeerTimeout, l.cfg.Services[0].DiskTimeout = time.Second, time.Second
	for _, name := range l.cfg.NodeNames() {
		n, err := Open(l.cfg, name, Options{Log: slog.New(slog.NewTextHandler(testWriter{t, name}, nil))})
		if err != nil {
			t.Fatal(err)
		}
		v := n.volume("data")
		if err := v.disks.Close(); err != nil {
			t.Fatal(err)
		}
		disks[name] = &hangingDisk{Disk: v.store.data}
		v.drive(disks[name], &hangingDisk{Disk: v.store.meta}, time.Minute) // a busy machine does not send writes to workers
		ctx, stop := context.WithCancel(context.Background())
		r := &running{node: n, stop: stop, done: make(chan error, 1)}
		go func() { r.done <- n.Run(ctx) }()
		l.nodes[name] = r
	}
	l.prim("alpha")
	l.waitFor("beta", control.Secondary)
	l.waitFor("alpha", control.Primary)
	return l, disks
}

func (l *lab) volume(name string) *volume { return l.nodes[name].node.volume("data") }

// until waits for a condition.
func (l *lab) until(what string, holds func() bool) {
	l.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			l.t.Fatalf("never: %s; alpha: %s; beta: %s", what, l.reason("alpha"), l.reason("beta"))
		}
	}
}

func (l *lab) reason(name string) string { return l.nodes[name].node.Status().Services[0].Reason }

// told reports whether a node's events say that its data path has become so.
func (l *lab) told(name, state string) bool {
	for _, e := range l.nodes[name].node.events.Since(0) {
		if e.Kind == "data path" && e.New == state {
			return true
		}
	}
	return false
}

// writeInBackground returns what becomes of a write.
func writeInBackground(c *nbd.Client, data []byte) <-chan error {
	done := make(chan error, 1)
	go func() { done <- c.WriteAt(data, 0, 0) }()
	return done
}

// TestHungSecondary: a write that hangs in the loop of the secondary costs the
// primary's clients peer-timeout; the secondary says what is wrong with it, and
// follows again when the call returns.
func TestHungSecondary(t *testing.T) {
	l, disks := newHangingLab(t)
	client := l.dial("alpha")
	defer client.Close()
	data := bytes.Repeat([]byte{7}, block.Size)
	if err := client.WriteAt(data, 0, 0); err != nil { // the intent is set
		t.Fatal(err)
	}
	release := disks["beta"].hang(changes)
	defer release()
	if err := <-writeInBackground(client, data); err != nil {
		t.Fatalf("a write at the primary of a hung secondary: %v", err)
	}
	l.waitFor("alpha", control.Alone)
	l.until("the secondary says that it hangs", func() bool {
		return l.told("beta", "hung") && strings.Contains(l.reason("beta"), "does not answer")
	})
	if v := l.volume("beta"); v.Hung() < v.patience() {
		t.Errorf("hung for %v only", v.Hung())
	}
	if !l.volume("beta").status.Load().KeptInStep {
		t.Error("the secondary does not say that it was in step")
	}
	release()
	l.until("the secondary turns again", func() bool { return l.told("beta", "turning") })
	l.waitFor("beta", control.Secondary)
	l.waitFor("alpha", control.Primary)
	if hung := l.volume("beta").Hung(); hung >= time.Second {
		t.Errorf("hung for %v", hung)
	}
	l.equal()
}

// TestHungPrimary: the loop of the primary hangs; both nodes say so without
// waiting for it, and a question to it can be given up.
func TestHungPrimary(t *testing.T) {
	l, disks := newHangingLab(t)
	client := l.dial("alpha")
	defer client.Close()
	data := bytes.Repeat([]byte{7}, block.Size)
	if err := client.WriteAt(data, 0, 0); err != nil {
		t.Fatal(err)
	}
	release := disks["alpha"].hang(changes)
	defer release()
	written := writeInBackground(client, data)
	l.until("the primary says that it hangs", func() bool {
		return l.told("alpha", "hung") && strings.Contains(l.reason("alpha"), "does not answer")
	})
	if st := l.nodes["alpha"].node.Status().Services[0]; st.Colour != control.NotReady {
		t.Errorf("alpha is %s and %s: %s", st.State, st.Colour, st.Reason)
	}
	l.until("the secondary misses it", func() bool { return strings.Contains(l.reason("beta"), "alpha was silent") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	asked := false
	if l.volume("alpha").doUntil(ctx.Done(), func(time.Duration) { asked = true }) {
		t.Error("a hung loop has answered")
	}
	select {
	case err := <-written:
		t.Errorf("answered meanwhile: %v", err)
	default:
	}
	release()
	if err := <-written; err != nil {
		t.Errorf("after the disk has answered: %v", err)
	}
	l.waitFor("alpha", control.Primary)
	l.waitFor("beta", control.Secondary)
	if asked {
		t.Error("a question that was given up was answered all the same")
	}
}

// TestHungRead: a read that hangs on a worker is answered from the peer when the
// disk is given up, and what the disk says later reaches no client.
func TestHungRead(t *testing.T) {
	l, disks := newHangingLab(t)
	client := l.dial("alpha")
	defer client.Close()
	want := bytes.Repeat([]byte{7}, block.Size)
	if err := client.WriteAt(want, 0, 0); err != nil {
		t.Fatal(err)
	}
	release := disks["alpha"].hang(reads)
	defer release()
	got := make([]byte, block.Size)
	if err := client.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read through the peer: %v", err)
	}
	if why := l.volume("alpha").status.Load().DiskFailed; !strings.Contains(why, "no answer") {
		t.Errorf("the disk has failed because of %q", why)
	}
	release()
	for range 100 {
		if err := client.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read after the disk has come back to life: %v", err)
		}
	}
}

// TestStopHungVolume: a volume whose loop hangs can be stopped all the same, and
// who asks it something waits no longer.
func TestStopHungVolume(t *testing.T) {
	l := newLab(t, "16MiB")
	l.stop("alpha")
	l.stop("beta")
	l.cfg.Services[0].DiskTimeout = 100 * time.Millisecond
	n, err := Open(l.cfg, "alpha", Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	v, call := n.volume("data"), make(chan struct{})
	v.loop.Post(func() { <-call })
	ctx, cancel := context.WithCancel(t.Context())
	ended, asked := make(chan error, 1), make(chan bool, 1)
	go func() { ended <- v.run(ctx) }()
	go func() { asked <- v.do(func(time.Duration) {}) }()
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "has not turned") {
		t.Errorf("ended with %v", err)
	}
	if <-asked {
		t.Error("a hung loop has answered")
	}
	close(call)
	for v.loop.Post(func() {}) { // until it closes its disks by itself
	}
	if err := n.services[0].file.Close(); err != nil {
		t.Error(err)
	}
	n.services = nil
	n.close()
}
