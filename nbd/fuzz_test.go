// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// FuzzHandshake: whatever a client sends, the handshake ends, and never with
// both an agreement and an error.
func FuzzHandshake(f *testing.F) {
	flags := "\x00\x00\x00\x03"
	f.Add([]byte(flags + string(opt(optGo, info("vol", 0, 1, 2, 3)...))))
	f.Add([]byte(flags + string(opt(optExportName, []byte("vol")...))))
	f.Add([]byte(flags + string(opt(optList)) + string(opt(optAbort))))
	f.Add([]byte(flags + string(opt(optStructured)) + string(opt(optSetContext, query("vol", "base:allocation")...)) + string(opt(optGo, info("vol")...))))
	f.Add([]byte(flags + string(opt(optStartTLS))))
	f.Fuzz(func(t *testing.T, input []byte) {
		client, server := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		go func() {
			_, _ = client.Write(input)
			_ = client.Close()
		}()
		n, err := Handshake(t.Context(), server, HandshakeConfig{Exports: catalogue{}})
		if (n == nil) != (err != nil) {
			t.Errorf("%v and %v", n, err)
		}
		_ = server.Close()
		_ = client.Close()
	})
}

// FuzzSession: whatever a client sends, and however it is cut, the engine gets
// the same valid requests in the same order.
func FuzzSession(f *testing.F) {
	f.Add(append(req(block.Write, 0, 1, 0, 3, 1, 2, 3), req(block.Read, 0, 2, 0, 70000)...), uint16(7), true)
	f.Add(append(req(block.Trim, 0, 1, 1<<20, 3), req(block.Flush, 0, 2, 0, 0)...), uint16(28), false)
	f.Add(append(req(block.Write, 0, 1, 1<<20, 5, 1, 2, 3, 4, 5), req(commandDisconnect, 0, 0, 0, 0)...), uint16(30), true)
	f.Add(append(req(block.BlockStatus, block.ReqOne, 1, 0, 5), req(99, 0, 2, 0, 0)...), uint16(1), true)
	f.Fuzz(func(t *testing.T, input []byte, step uint16, structured bool) {
		n := Negotiated{Structured: structured}
		if structured {
			n.Contexts = block.ContextAllocation | block.ContextDirty
		}
		whole, split := newRig(t, n, Options{Requests: 3}), newRig(t, n, Options{Requests: 3})
		_, e1 := whole.exchange(input)
		var e2 error
		for b := input; len(b) > 0 && e2 == nil && !split.s.ended; {
			k := min(len(b), int(step)+1)
			var rest []byte
			rest, e2 = split.feed(b[:k])
			b = b[k-len(rest):]
			split.turn()
			split.take(-1)
		}
		if e2 == nil {
			_, e2 = split.drain()
		}
		a, b := whole.s.Stats(), split.s.Stats()
		a.Stalls, b.Stalls = 0, 0
		broken := whole.hangErr != nil || e1 != nil
		if !broken && a != b || !bytes.Equal(whole.disk, split.disk) && !broken || broken != (split.hangErr != nil || e2 != nil) {
			t.Errorf("whole: %v %v %+v; in steps of %d: %v %v %+v", e1, whole.hangErr, a, int(step)+1, e2, split.hangErr, b)
		}
		if a.InFlight != 0 || b.InFlight != 0 {
			t.Errorf("%d and %d requests are still in flight", a.InFlight, b.InFlight)
		}
		whole.s.Closed(e1)
		split.s.Closed(e2)
		if whole.idle != 1 || split.idle != 1 {
			t.Error("not idle after the end")
		}
	})
}
