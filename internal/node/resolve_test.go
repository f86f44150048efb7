// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
)

// fill is length bytes that no other seed has.
func fill(seed byte, length int) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = seed ^ byte(i*7) ^ byte(i>>8)
	}
	return b
}

func (l *lab) put(name string, offset int64, p []byte) {
	l.t.Helper()
	c := l.dial(name)
	defer c.Close()
	if err := c.WriteAt(p, offset, 0); err != nil {
		l.t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		l.t.Fatal(err)
	}
}

// asks runs an action on a node and returns what it said.
func (l *lab) asks(name string, a control.Action) (said []control.Progress, err error) {
	l.t.Helper()
	a.Service, a.Who = "pg", "test"
	err = l.nodes[name].node.Act(l.t.Context(), a, func(p control.Progress) {
		if n := len(said); n == 0 || said[n-1].Text != p.Text {
			l.t.Logf("%s %s: %s", name, a.Verb, p.Text)
		}
		said = append(said, p)
	})
	return said, err
}

// split makes a pair of which each node has blocks of its own: alpha two at 1 MiB
// and one that reads as zeroes at 3 MiB, beta one at 1 MiB and one at 8 MiB.
func (l *lab) split() {
	l.t.Helper()
	l.prim("alpha")
	l.waitFor("beta", control.Secondary)
	l.waitFor("alpha", control.Primary)
	l.put("alpha", 0, fill(1, 1<<20))
	l.put("alpha", 3<<20, fill(1, block.Size))
	l.stop("beta")
	l.waitFor("alpha", control.Alone)
	l.put("alpha", 1<<20, fill(2, 2*block.Size))
	l.put("alpha", 3<<20, make([]byte, block.Size))
	l.stop("alpha")
	l.start("beta")
	if err := l.act("beta", "primforce"); err != nil {
		l.t.Fatal(err)
	}
	l.put("beta", 1<<20, fill(3, block.Size))
	l.put("beta", 8<<20, fill(4, block.Size))
	l.start("alpha")
	l.until("both see the split", func() bool {
		return l.nodes["alpha"].node.volume("data").status.Load().Split && l.nodes["beta"].node.volume("data").status.Load().Split
	})
}

// preview is what `resolve` shows before it asks.
func (l *lab) preview(name string) *control.Split {
	l.t.Helper()
	said, err := l.asks(name, control.Action{Verb: "split", Volume: "data"})
	if err != nil {
		l.t.Fatal(err)
	}
	return said[0].Split
}

// A split is shown with the right numbers, on either node; what the loser has is
// saved byte by byte; then both disks are the keeper's.
func TestResolve(t *testing.T) {
	for _, at := range []string{"alpha", "beta"} {
		t.Run("asked at "+at, func(t *testing.T) {
			l := newLab(t, "16MiB")
			l.split()
			split := l.preview(at)
			alpha, beta := split.Side("alpha"), split.Side("beta")
			if alpha.Blocks != 3 || beta.Blocks != 2 || alpha.Bytes != 3*block.Size {
				t.Errorf("alpha has %d blocks (%d bytes) of its own, beta %d, want 3 and 2", alpha.Blocks, alpha.Bytes, beta.Blocks)
			}
			if alpha.Base != beta.Base || alpha.Generation == beta.Generation || alpha.Serves || !beta.Serves ||
				!strings.HasPrefix(beta.Forced, "primforce by test at ") || alpha.Forced != "" || beta.LastWrite.IsZero() {
				t.Errorf("alpha %+v, beta %+v", alpha, beta)
			}
			for _, r := range l.nodes {
				if p := r.node.Status().Services[0].Volumes[0].Problems; len(p) != 1 || !strings.HasPrefix(p[0].Message, "split brain: ") {
					t.Errorf("the status of %s has the problems %v", r.node.self.Name, p)
				}
			}
			for args, want := range map[[2]string]string{
				{"beta", "00"}:              "another generation",
				{"alpha", beta.Generation}:  "beta serves pg",
				{"gamma", alpha.Generation}: `node "gamma" is none of the two`,
			} {
				_, err := l.asks(at, control.Action{Verb: "resolve", Volume: "data", Args: map[string]string{"keep": args[0], "generation": args[1]}})
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("resolve %v: %v, want %q", args, err, want)
				}
			}
			before, err := os.ReadFile(filepath.Join(l.dir, "alpha.img"))
			if err != nil {
				t.Fatal(err)
			}
			kept, err := os.ReadFile(filepath.Join(l.dir, "beta.img"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.asks(at, control.Action{Verb: "resolve", Volume: "data", Args: map[string]string{"keep": "beta", "generation": alpha.Generation}}); err != nil {
				t.Fatal(err)
			}
			l.waitFor("alpha", control.Secondary)
			l.equal()
			after, err := os.ReadFile(filepath.Join(l.dir, "beta.img"))
			if err != nil || !bytes.Equal(after, kept) {
				t.Errorf("the keeper's disk has changed: %v", err)
			}
			l.checkSaved("alpha", before, kept)
			if copied := l.nodes["beta"].node.volume("data").status.Load().Counters.ResyncedBytes; copied != 4*block.Size {
				t.Errorf("%d bytes were copied: want the 4 blocks that either has written", copied)
			}
			if _, err := l.asks(at, control.Action{Verb: "split", Volume: "data"}); err == nil || !strings.Contains(err.Error(), "no split brain") {
				t.Errorf("after it there is a split: %v", err)
			}
		})
	}
}

// checkSaved holds that the one saved file of a node turns the keeper's image into
// what the node's was.
func (l *lab) checkSaved(name string, before, kept []byte) {
	l.t.Helper()
	files, err := filepath.Glob(filepath.Join(l.dir, name, "split-data-*.twinbd"))
	if err != nil || len(files) != 1 {
		l.t.Fatalf("saved files: %v, %v", files, err)
	}
	// The keeper's image differs from the loser's in what beta wrote, too.
	image := filepath.Join(l.dir, "image")
	copy(kept[8<<20:], before[8<<20:][:block.Size])
	if err := os.WriteFile(image, kept, 0o600); err != nil {
		l.t.Fatal(err)
	}
	if err := ExtractSplit(files[0], image); err != nil {
		l.t.Fatal(err)
	}
	if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, before) {
		l.t.Errorf("what was saved is not what %s had: %v", name, err)
	}
	var text bytes.Buffer
	if err := InspectSplit(&text, files[0]); err != nil {
		l.t.Fatal(err)
	}
	for _, want := range []string{"data of service pg", "on alpha, whose data was given up for that of beta", "3 blocks, 12288 bytes",
		"bytes 1048576 to 1056768: data", "bytes 3145728 to 3149824: zeroes", "checksum     right"} {
		if !strings.Contains(text.String(), want) {
			l.t.Errorf("the file does not say %q:\n%s", want, &text)
		}
	}
}

// The one that serves is stopped, and the other's data is kept: it takes the
// service, and the stopped node starts to be copied to.
func TestResolveForTheOneThatDoesNotServe(t *testing.T) {
	l := newLab(t, "16MiB")
	l.split()
	if _, err := l.asks("beta", control.Action{Verb: "stop"}); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(l.dir, "alpha.img"))
	if err != nil {
		t.Fatal(err)
	}
	generation := l.preview("alpha").Side("beta").Generation
	if _, err := l.asks("alpha", control.Action{Verb: "resolve", Volume: "data", Args: map[string]string{"keep": "alpha", "generation": generation}}); err != nil {
		t.Fatal(err)
	}
	l.waitFor("alpha", control.Primary)
	l.waitFor("beta", control.Secondary)
	l.equal()
	if got, err := os.ReadFile(filepath.Join(l.dir, "alpha.img")); err != nil || !bytes.Equal(got, kept) {
		t.Errorf("the keeper's disk has changed: %v", err)
	}
}

// Two disks of which each began a history of its own: nothing is copied, one line
// says why and what to do, and the operator's choice ends it as it ends a split.
func TestResolveUnrelatedDisks(t *testing.T) {
	l := newLab(t, "16MiB")
	l.stop("beta")
	if err := l.act("alpha", "primforce"); err != nil {
		t.Fatal(err)
	}
	l.put("alpha", 1<<20, fill(2, 3*block.Size))
	l.stop("alpha")
	l.start("beta")
	if err := l.act("beta", "primforce"); err != nil {
		t.Fatal(err)
	}
	l.put("beta", 8<<20, fill(4, block.Size))
	l.start("alpha")
	l.until("both see that they are unrelated", func() bool {
		return l.nodes["alpha"].node.volume("data").status.Load().Unrelated && l.nodes["beta"].node.volume("data").status.Load().Unrelated
	})
	for _, r := range l.nodes {
		p := r.node.Status().Services[0].Volumes[0].Problems
		if len(p) != 1 || !strings.HasPrefix(p[0].Message, "the two disks have no history in common") || !strings.Contains(p[0].Hint, "twinbd resolve data") {
			t.Errorf("the status of %s has the problems %v", r.node.self.Name, p)
		}
	}
	split := l.preview("alpha")
	alpha := split.Side("alpha")
	if split.Reason() != "the two disks have no history in common" || !alpha.Whole || alpha.Bytes != 16<<20 {
		t.Errorf("shown: %q, %+v", split.Reason(), alpha)
	}
	before, err := os.ReadFile(filepath.Join(l.dir, "alpha.img"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.asks("beta", control.Action{Verb: "resolve", Volume: "data", Args: map[string]string{"keep": "beta", "generation": alpha.Generation}}); err != nil {
		t.Fatal(err)
	}
	l.waitFor("alpha", control.Secondary)
	l.equal()
	files, err := filepath.Glob(filepath.Join(l.dir, "alpha", "split-data-*.twinbd"))
	if err != nil || len(files) != 1 {
		t.Fatalf("saved files: %v, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Size() > 2<<20 {
		t.Errorf("16 MiB, of which most is zeroes, took %d bytes: %v", info.Size(), err)
	}
	image := filepath.Join(l.dir, "image")
	if err := os.WriteFile(image, fill(9, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ExtractSplit(files[0], image); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, before) {
		t.Errorf("what was saved is not what alpha had: %v", err)
	}
}

// Nothing is given up when what would be lost cannot be saved.
func TestResolveWantsItSaved(t *testing.T) {
	l := newLab(t, "16MiB")
	l.split()
	generation := l.preview("alpha").Side("alpha").Generation
	state := l.nodes["alpha"].node.self.State
	defer func() { l.nodes["alpha"].node.self.State = state }()
	l.nodes["alpha"].node.self.State = filepath.Join(l.dir, "nowhere")
	_, err := l.asks("alpha", control.Action{Verb: "resolve", Volume: "data", Args: map[string]string{"keep": "beta", "generation": generation}})
	if err == nil || !strings.Contains(err.Error(), "save the blocks") {
		t.Errorf("resolve without room: %v", err)
	}
	if side := l.preview("beta").Side("alpha"); side.Generation != generation || !side.Split {
		t.Errorf("something was given up: %+v", side)
	}
}
