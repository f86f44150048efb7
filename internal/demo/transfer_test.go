// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/nbd/nbdtest"
)

// The project's own client copies what nbdcopy would: odd lengths, zeroes over
// what was there before, nothing behind the end.
func TestOwnClientCopies(t *testing.T) {
	const size, length = 4 * pieceSize, 3*pieceSize + 5
	engine := nbdtest.NewEngine(size)
	for i := range engine.Data {
		engine.Data[i] = 0xee
	}
	content := make([]byte, length) // its second piece stays zero
	random := rand.NewChaCha8([32]byte{1})
	random.Read(content[:pieceSize])
	random.Read(content[2*pieceSize:])
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	server, uri := serveEngine(t, engine)

	own, img := transfer{}, &image{path: path, size: length}
	if err := own.in(t.Context(), img, uri); err != nil {
		t.Fatal(err)
	}
	server.Do(func(e *nbdtest.Engine) {
		if !bytes.Equal(e.Data[:length], content) {
			t.Error("what was copied in differs from the image")
		}
		if !bytes.Equal(e.Data[length:], bytes.Repeat([]byte{0xee}, size-length)) {
			t.Error("something was written behind the image")
		}
		if e.Flushes() == 0 {
			t.Error("what was copied in was not flushed")
		}
	})
	sum := sha256.Sum256(content)
	if got, err := own.sum(t.Context(), uri, length); err != nil || got != hex.EncodeToString(sum[:]) {
		t.Errorf("sum of the export is %s (%v), want %x", got, err, sum)
	}
	if got, err := dataBytes(img); err != nil || got != 2*pieceSize+5 {
		t.Errorf("image has %d bytes in blocks that are not zero (%v), want %d", got, err, 2*pieceSize+5)
	}
}

// serveEngine serves an engine until the test ends, and returns its URI.
func serveEngine(t *testing.T, e *nbdtest.Engine) (*nbdtest.Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server, done := nbdtest.NewServer(e), make(chan error, 1)
	go func() {
		done <- server.Serve(ctx, l, nbd.NewGate(nbd.GateConfig{Logger: slog.New(slog.DiscardHandler)}),
			nbd.HandshakeConfig{Exports: nbdtest.Exports{{Name: "x", Size: int64(len(e.Data))}}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server, "nbd://" + l.Addr().String() + "/x"
}
