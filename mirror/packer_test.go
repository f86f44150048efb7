// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/twinbd/twinbd/internal/block"
)

// BenchmarkPack says what compressing a run of a resync costs and saves, on a
// program and on what does not shrink.
func BenchmarkPack(b *testing.B) {
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		b.Fatal(err)
	}
	random := make([]byte, maxCopyBlocks*block.Size)
	rand.NewChaCha8([32]byte{1}).Read(random)
	for _, c := range []struct {
		name string
		data []byte
	}{{"program", program}, {"random", random}} {
		run := c.data[:maxCopyBlocks*block.Size]
		b.Run(c.name, func(b *testing.B) {
			out := make([]byte, s2.MaxEncodedLen(len(run)))
			b.SetBytes(int64(len(run)))
			b.ReportAllocs()
			var packed []byte
			for b.Loop() {
				packed = s2.Encode(out, run)
			}
			b.ReportMetric(float64(len(packed))/float64(len(run)), "left/run")
		})
	}
}
