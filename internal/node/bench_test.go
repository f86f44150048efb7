// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
)

// BenchmarkPair measures requests through the whole of a pair as it runs in
// production: a client on a Unix socket, two loops, TCP between the nodes, two
// disks, all rules on. Allocations are those of both nodes together; there are
// none per request.
func BenchmarkPair(b *testing.B) {
	for _, op := range []block.Op{block.Write, block.Read} {
		for _, depth := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s-4KiB-depth%d", op, depth), func(b *testing.B) { benchmarkPair(b, op, depth) })
		}
	}
}

const benchBlocks = 16 << 20 / block.Size

func benchmarkPair(b *testing.B, op block.Op, depth int) {
	l := newPacedLab(b, "16MiB", "safe") // heartbeats allocate: few of them
	l.prim("alpha")
	l.waitFor("beta", control.Secondary)
	l.waitFor("alpha", control.Primary)
	conn := rawClient(b, filepath.Join(l.dir, "alpha.sock"))
	defer conn.Close()
	request, reply := block.RecordHeader, 16
	if op == block.Write {
		request += block.Size
	} else {
		reply += block.Size
	}
	out, in := make([]byte, depth*request), make([]byte, depth*reply)
	round := func(first int) {
		for i := range depth {
			at := int64((first+i)*7919%benchBlocks) * block.Size
			block.PutRecord(out[i*request:], op, 0, uint64(i), at, block.Size)
		}
		if _, err := conn.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, in); err != nil {
			b.Fatal(err)
		}
	}
	for i := 0; i < 2*benchBlocks; i += depth { // intents set, pools filled
		round(i)
	}
	b.ReportAllocs()
	b.SetBytes(block.Size)
	b.ResetTimer()
	for i := 0; i < b.N; i += depth {
		round(i)
	}
	b.StopTimer()
}

// rawClient shakes hands and leaves the connection to the benchmark, so that
// no client's work is measured with ours: NBD's oldest option, EXPORT_NAME,
// which is answered by the size and the flags.
func rawClient(b *testing.B, path string) net.Conn {
	conn, err := new(net.Dialer).DialContext(b.Context(), "unix", path)
	if err != nil {
		b.Fatal(err)
	}
	var hello [18]byte
	if _, err := io.ReadFull(conn, hello[:]); err != nil {
		b.Fatal(err)
	}
	answer := binary.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	answer = append(answer, "IHAVEOPT"...)
	answer = binary.BigEndian.AppendUint32(answer, 1)
	answer = binary.BigEndian.AppendUint32(answer, 4)
	if _, err := conn.Write(append(answer, "data"...)); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(conn, hello[:10]); err != nil {
		b.Fatal(err)
	}
	return conn
}

// TestRequestsDoNotAllocate holds what the benchmark shows.
func TestRequestsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, op := range []block.Op{block.Write, block.Read} {
		r := testing.Benchmark(func(b *testing.B) { benchmarkPair(b, op, 16) })
		if r.N < 1000 {
			t.Fatalf("%v: only %d requests", op, r.N)
		}
		if each := float64(r.MemAllocs) / float64(r.N); each > 0.05 {
			t.Errorf("%v: %.3f allocations per request", op, each)
		}
	}
}
