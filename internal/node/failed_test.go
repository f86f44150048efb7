// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
)

// fail writes into the metadata of a node that is down what a failed disk leaves
// there.
func (l *lab) fail(name string) {
	l.t.Helper()
	s := &store{cfg: l.cfg, volume: l.cfg.Volume("data"), node: name}
	if err := s.open(); err != nil {
		l.t.Fatal(err)
	}
	defer s.close()
	md, err := bitmap.Load(s.meta, s.meta.Size())
	if err != nil {
		l.t.Fatal(err)
	}
	md.Header.State, md.Header.Reason = bitmap.Failed, "write: medium error"
	image := make([]byte, bitmap.PageSize)
	if err := md.Header.Encode(image, md.Sequence+1); err != nil {
		l.t.Fatal(err)
	}
	if err := s.meta.WriteAt(image, bitmap.HeaderOffset(md.Sequence+1)); err != nil {
		l.t.Fatal(err)
	}
	if err := s.meta.Sync(); err != nil {
		l.t.Fatal(err)
	}
}

// The last good disk has failed, the other lacks a block: nobody serves, nobody
// says that it may be wiped, and the operator can have what it still holds.
func TestPrimforceFailedDisk(t *testing.T) {
	l := newLab(t, "1MiB")
	l.pair()
	l.stop("beta")
	l.waitFor("alpha", control.Alone)
	want := fill(5, block.Size)
	l.put("alpha", 4096, want)
	l.stop("alpha")
	l.fail("alpha")
	l.start("alpha")
	l.waitFor("alpha", control.Wait)
	l.start("beta")
	l.until("alpha says what happened", func() bool {
		p := l.nodes["alpha"].node.Status().Services[0].Volumes[0].Problems
		return len(p) > 0 && strings.Contains(p[0].Message, "write: medium error")
	})
	if p := l.nodes["alpha"].node.Status().Services[0].Volumes[0].Problems[0]; strings.Contains(p.Hint, "create") {
		t.Errorf("the only copy is to be wiped: %s", p.Hint)
	}
	if err := l.act("alpha", "prim"); err == nil {
		t.Error("a failed disk serves without force")
	}
	if err := l.act("alpha", "primforce"); err != nil {
		t.Fatal(err)
	}
	l.waitFor("alpha", control.Primary)
	l.waitFor("beta", control.Secondary)
	c := l.dial("alpha")
	defer c.Close()
	got := make([]byte, block.Size)
	if err := c.ReadAt(got, 4096); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read what the failed disk still held: %v", err)
	}
	l.equal()
}
