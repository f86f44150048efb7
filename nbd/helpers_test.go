// SPDX-License-Identifier: Apache-2.0

package nbd_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/nbd/nbdtest"
)

const testSize = 8 << 20

// testExports has one export with everything on, and one that is read-only.
func testExports() nbdtest.Exports {
	return nbdtest.Exports{
		{Name: "vol", Description: "a volume", Size: testSize, Contexts: block.ContextAllocation | block.ContextDirty},
		{Name: "fixed", Size: testSize, ReadOnly: true},
	}
}

// startServer serves an engine on a Unix socket until the test ends.
func startServer(t testing.TB, cfg nbd.HandshakeConfig) (s *nbdtest.Server, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Exports == nil {
		cfg.Exports = testExports()
	}
	s = nbdtest.NewServer(nbdtest.NewEngine(testSize))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l, nbd.NewGate(nbd.GateConfig{}), cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, socket
}

// dial connects a client to the default export behind a Unix socket.
func dial(t testing.TB, socket string) *nbd.Client {
	t.Helper()
	c, err := nbd.Dial(t.Context(), "nbd+unix:///?socket="+socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
