// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
)

// FuzzPeer connects to a node as its peer would and says anything: what the
// connection is for, and then beats, questions, or frames of a volume. The node
// answers or hangs up, and serves on.
func FuzzPeer(f *testing.F) {
	l := newLab(f, "1MiB")
	l.prim("alpha")
	l.stop("beta")
	l.waitFor("alpha", control.Alone)
	n := l.nodes["alpha"].node
	message := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	hello := func(kind string) []byte {
		return message(preamble{Protocol: 1, Oldest: 1, Cluster: "lab", From: "beta", Kind: kind, Volume: "data", Link: strings.Repeat("0", 32)})
	}
	f.Add(append(hello(kindBeat), message(beatMessage{Service: "pg", About: about{Config: "x", State: "PRIM", Time: time.Unix(1, 0)}})...))
	f.Add(append(hello(kindBeat), "\x00\x02{}\xff\xff"...))
	f.Add(append(hello(kindCall), message(call{Verb: callSide, Volume: "data"})...))
	f.Add(append(hello(kindCall), message(call{Verb: callServed, Service: "pg"})...))
	f.Add(append(hello(kindCall), message(call{Verb: callAct, Act: "resolve", Service: "pg", Volume: "data", Args: map[string]string{"keep": "beta"}})...))
	f.Add(append(hello(kindData), "tbd1"...))
	f.Add(hello(kindBulk))
	f.Add(hello("other"))
	f.Add(message(map[string]any{"protocol": 2}))
	f.Add([]byte("\x00\x05nulls"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		if acts(sent) {
			return // what the peer may ask for is done, and takes its time
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		near, far := net.Pipe()
		go func() {
			near.Write(sent)
			near.Close()
		}()
		go io.Copy(io.Discard, near)
		conn, hello, err := n.peers.accept(ctx, far)
		if n.peers.noteAccept(hello, err); err != nil {
			return
		}
		if hello.Kind == kindData { // half of a link, which nobody completes
			conn.Close()
			return
		}
		n.peers.take(ctx, conn, hello)
		if s := n.Status(); s.Services[0].State != control.Alone {
			t.Fatalf("the node is %s: %s", s.Services[0].State, s.Services[0].Reason)
		}
	})
}

// acts reports whether a stream has a question that changes what the node does.
func acts(sent []byte) bool {
	for i := 0; len(sent) >= 2; i++ {
		length := int(binary.BigEndian.Uint16(sent))
		if len(sent) < 2+length {
			return false
		}
		var c call
		if i > 0 && json.Unmarshal(sent[2:2+length], &c) == nil && c.Verb == callAct && c.Act != "resolve" {
			return true
		}
		sent = sent[2+length:]
	}
	return false
}
