// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files; never for a format that was released")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("%s differs:\n%s\nwant:\n%s", path, got, want)
	}
}

// dump is p as lines of 16 bytes in hexadecimal; lines of zeroes are left out.
func dump(p []byte) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d bytes\n", len(p))
	for i := 0; i < len(p); i += 16 {
		if line := p[i : i+16]; !isZero(line) {
			fmt.Fprintf(&s, "%04x %x\n", i, line)
		}
	}
	return s.String()
}

// undump reads what dump wrote.
func undump(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var n int
	if _, err := fmt.Sscanf(lines[0], "%d bytes", &n); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, n)
	for _, line := range lines[1:] {
		var at int
		var digits string
		if _, err := fmt.Sscanf(line, "%x %s", &at, &digits); err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
		if _, err := hex.Decode(p[at:], []byte(digits)); err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
	}
	return p
}

// TestFormatV1 holds the stored form of version 1, in both directions.
func TestFormatV1(t *testing.T) {
	l, err := new(testHeader()).Layout()
	if err != nil {
		t.Fatal(err)
	}
	regions := []uint32{0, 7, 8, 299}
	in := NewIntents(l)
	for _, region := range regions {
		in.Add(region)
	}
	blocks := []Run{{PageBlocks, 1}, {PageBlocks + 9, 6}, {2*PageBlocks - 1, 1}}
	b := NewBits(testHeader().Size)
	if _, err := b.Union(blocks); err != nil {
		t.Fatal(err)
	}
	const salt = 0x0123456789abcdef
	golden(t, "header-v1.txt", dump(headerWrite(t, testHeader(), 9).Data))
	golden(t, "intents-v1.txt", dump(intentsWrite(l, in, salt, 10).Data))
	golden(t, "page-v1.txt", dump(pageWrite(l, b, 1, salt).Data))

	h, sequence, err := DecodeHeader(undump(t, "header-v1.txt"))
	if err != nil || sequence != 9 || h != testHeader() {
		t.Errorf("header: %+v, %d, %v", h, sequence, err)
	}
	got, sequence, err := DecodeIntents(undump(t, "intents-v1.txt"), l, salt)
	if err != nil || sequence != 10 || !slices.Equal(got, regions) {
		t.Errorf("intents: %v, %d, %v", got, sequence, err)
	}
	from := NewBits(testHeader().Size)
	if err := from.DecodePage(1, salt, undump(t, "page-v1.txt")); err != nil || !slices.Equal(runsOf(from), blocks) {
		t.Errorf("page: %v, %v", runsOf(from), err)
	}
}

func TestPrint(t *testing.T) {
	print := func(m *Metadata) string {
		var s bytes.Buffer
		if err := Print(&s, m); err != nil {
			t.Fatal(err)
		}
		return s.String()
	}
	fresh := Header{
		Cluster: "systel", Volume: "pgdata", Node: "alpha", Peer: "beta", DiskID: "file:6f1c:131",
		Size: 10 << 30, RegionSize: DefaultRegionSize, IntentLimit: DefaultIntentLimit, Salt: 1, State: Fresh,
	}
	golden(t, "print-fresh.txt", print(newArea(t, fresh).load(t)))
	golden(t, "print-used.txt", print(usedArea(t).load(t)))

	h := testHeader()
	h.Size, h.State, h.LastPrimary, h.Serving = 5<<30+1, Failed, true, false
	h.Forced = ""
	for i := range h.Ancestors {
		h.Ancestors[i] = Generation{byte(i + 1)}
	}
	a := newArea(t, h)
	l, err := h.Layout()
	if err != nil {
		t.Fatal(err)
	}
	a.data[64<<10+40]++
	a.broken = []Run{{l.IntentsOffset(0), 1}}
	for _, page := range []int{1, 2, 3, 40} {
		a.data[l.PageOffset(page)]++
	}
	golden(t, "print-damaged.txt", print(a.load(t)))

	m := usedArea(t).load(t)
	m.Bits.Clear(0, m.Bits.Blocks())
	m.Regions = nil
	for i := range int64(12) {
		m.Bits.Set(i*10, i%2+1)
		m.Regions = append(m.Regions, uint32(2*i))
	}
	golden(t, "print-many.txt", print(m))
}

type fullWriter struct{}

var errFull = errors.New("no space")

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }

func TestPrintReturnsTheErrorOfTheWriter(t *testing.T) {
	if err := Print(fullWriter{}, usedArea(t).load(t)); !errors.Is(err, errFull) {
		t.Errorf("error is %v", err)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		Blank.String(): "blank", Fresh.String(): "fresh", Inconsistent.String(): "inconsistent",
		Consistent.String(): "consistent", Failed.String(): "failed", State(9).String(): "state 9",
		sizeText(1): "1 bytes", sizeText(4096): "4 KiB", sizeText(3 << 39): "1.5 TiB", sizeText(5 << 40): "5 TiB",
		sizeText(5 * block.Size / 2): "10 KiB",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
