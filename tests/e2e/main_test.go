// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// data is the volume of most labs.
const data = "data"

// pattern is length bytes that no other seed has.
func pattern(seed byte, length int) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = seed ^ byte(i*7) ^ byte(i>>8)
	}
	return b
}

// put writes through a client and flushes.
func put(t *testing.T, c *nbd.Client, offset int64, p []byte) {
	t.Helper()
	if err := c.WriteAt(p, offset, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// holds checks what a client reads.
func holds(t *testing.T, c *nbd.Client, offset int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := c.ReadAt(got, offset); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the %d bytes at %d are not what was written", len(want), offset)
	}
}

// A pair in every flavour: what is written is on both disks, and each node says
// what it is.
func TestPair(t *testing.T) {
	for name, options := range map[string]harness.Options{
		"keys and witness": {},
		"no keys":          {Insecure: true},
		"no witness":       {NoWitness: true},
		"tcp":              {TCP: true},
		"thin":             {Thin: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := harness.NewPair(t, options)
			c := lab.Alpha.Dial(t, data)
			put(t, c, 1<<20, pattern(1, 64<<10))
			if err := c.WriteAt(pattern(2, 5000), 3<<20|77, block.FUA); err != nil {
				t.Fatal(err)
			}
			holds(t, c, 1<<20, pattern(1, 64<<10))
			holds(t, c, 3<<20|77, pattern(2, 5000))
			lab.SameDisks(t)

			for node, want := range map[*harness.Node]struct {
				code  int
				state control.State
			}{
				lab.Alpha: {13, control.Primary}, lab.Beta: {14, control.Secondary},
			} {
				out := node.Run(t, "status", "--exit-code", harness.Service)
				if out.Code != want.code || !strings.Contains(out.Stdout, string(want.state)) {
					t.Errorf("status --exit-code of %s, want %d and %s: %s", node.Name, want.code, want.state, out)
				}
			}
		})
	}
}

// A secondary lets no client in and says in one line where to go.
func TestSecondarySendsClientsToThePrimary(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	const says = "this node is secondary; alpha serves this volume"
	if c, err := nbd.Dial(t.Context(), lab.Beta.URI(data), nil); err == nil {
		c.Close()
		t.Error("the secondary let a client in")
	} else if !strings.Contains(err.Error(), says) {
		t.Errorf("the secondary said %q, want %q", err, says)
	}
}

// patience is how long a test waits for what takes a moment.
const patience = 30 * time.Second
