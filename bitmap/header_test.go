// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinbd/twinbd/internal/block"
)

// headers draws a header that can be stored.
var headers = rapid.Custom(func(t *rapid.T) Header {
	l := layouts.Draw(t, "layout")
	name := func(what string, least, most int) string {
		return rapid.StringMatching(`[ -~é€]*`).Filter(func(s string) bool {
			return len(s) >= least && len(s) <= most
		}).Draw(t, what)
	}
	generation := func(what string) Generation {
		return Generation(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, what))
	}
	h := Header{
		Cluster: name("cluster", 1, MaxName), Service: name("service", 0, MaxName), Volume: name("volume", 1, MaxName),
		Node: name("node", 1, MaxName), Peer: name("peer", 1, MaxName), DiskID: name("disk", 1, MaxDiskID),
		VolumeID: generation("volume ID"),
		Size:     l.Size(), RegionSize: l.RegionSize(), IntentLimit: l.IntentLimit(),
		Salt:       rapid.Uint64().Draw(t, "salt"),
		State:      rapid.SampledFrom([]State{Blank, Fresh, Inconsistent, Consistent, Failed}).Draw(t, "state"),
		Generation: generation("generation"), Base: generation("base"), Intended: generation("intended"),
		Generations: rapid.Uint64().Draw(t, "generations"),
		LastPrimary: rapid.Bool().Draw(t, "last primary"), Serving: rapid.Bool().Draw(t, "serving"),
		Moment: rapid.Uint64().Draw(t, "moment"), PeerMoment: rapid.Uint64().Draw(t, "peer moment"), ResyncID: rapid.Uint64().Draw(t, "resync"),
		Forced: name("forced", 0, MaxForced), Reason: name("reason", 0, MaxReason),
	}
	for i := range rapid.IntRange(0, MaxAncestors).Draw(t, "ancestors") {
		h.Ancestors[i] = generation("ancestor")
		h.Ancestors[i][0] |= 1
	}
	return h
})

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := headers.Draw(t, "header")
		sequence := rapid.Uint64().Draw(t, "sequence")
		buf := bytes.Repeat([]byte{0xee}, HeaderSize)
		if err := want.Encode(buf, sequence); err != nil {
			t.Fatal(err)
		}
		got, n, err := DecodeHeader(buf)
		if err != nil || n != sequence || got != want {
			t.Fatalf("decoded %+v, %d, %v\nencoded %+v, %d", got, n, err, want, sequence)
		}
	})
}

func TestHeaderThatCannotBeStored(t *testing.T) {
	tests := []struct {
		name   string
		change func(h *Header)
		says   string
	}{
		{"no size", func(h *Header) { h.Size = 0 }, "volume size is 0 bytes"},
		{"odd region", func(h *Header) { h.RegionSize = 5 }, "region size is 5 bytes"},
		{"no intents", func(h *Header) { h.IntentLimit = 0 }, "limit of intents is 0"},
		{"no state", func(h *Header) { h.State = 0 }, "state 0 is not known"},
		{"unknown state", func(h *Header) { h.State = 6 }, "state 6 is not known"},
		{"no cluster", func(h *Header) { h.Cluster = "" }, "name of the cluster is empty"},
		{"no volume", func(h *Header) { h.Volume = "" }, "name of the volume is empty"},
		{"no node", func(h *Header) { h.Node = "" }, "name of the node is empty"},
		{"no peer", func(h *Header) { h.Peer = "" }, "name of the peer is empty"},
		{"no disk", func(h *Header) { h.DiskID = "" }, "name of the disk is empty"},
		{"long service", func(h *Header) { h.Service = strings.Repeat("x", 65) }, "name of the service has 65 bytes, at most 64"},
		{"long disk", func(h *Header) { h.DiskID = strings.Repeat("x", 256) }, "name of the disk has 256 bytes, at most 255"},
		{"bad UTF-8", func(h *Header) { h.Node = "a\xff" }, "name of the node is not valid UTF-8"},
		{"escape sequence", func(h *Header) { h.Peer = "\x1b[2J" }, "name of the peer has control characters"},
		{"gap in the ancestors", func(h *Header) { h.Ancestors[0] = Generation{} }, "ancestor 1 follows the end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := testHeader()
			tt.change(&h)
			if err := h.Encode(make([]byte, HeaderSize), 1); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Encode: %v, want %q", err, tt.says)
			}
			if _, err := Format(h); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Format: %v, want %q", err, tt.says)
			}
		})
	}
}

// TestTextsForPeopleAreCut: a long reason must not keep a failure from being
// stored.
func TestTextsForPeopleAreCut(t *testing.T) {
	h := testHeader()
	h.Reason = strings.Repeat("ab\ncd", 50) + "12345€" // byte 256 is within the last character
	h.Forced = strings.Repeat("\xff", 200)
	buf := make([]byte, HeaderSize)
	if err := h.Encode(buf, 1); err != nil {
		t.Fatal(err)
	}
	got, _, err := DecodeHeader(buf)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("ab cd", 50) + "12345"; got.Reason != want {
		t.Errorf("reason is %q, want %q", got.Reason, want)
	}
	if want := "?"; got.Forced != want {
		t.Errorf("forced is %q, want %q", got.Forced, want)
	}
}

func headerImage(version uint32, sequence uint64, payload []byte) []byte {
	return block.EncodeSlot(make([]byte, HeaderSize), headerMagic, version, sequence, payload)
}

// payloadOf is the payload of the stored form of h.
func payloadOf(t testing.TB, h Header) []byte {
	t.Helper()
	return headerWrite(t, h, 1).Data[block.SlotHeader : block.SlotHeader+headerPayload]
}

func TestDecodeHeaderRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(p []byte) []byte
		says   string
	}{
		{"shorter", func(p []byte) []byte { return p[:headerPayload-1] }, "version 1 with 1357 bytes is not known"},
		{"longer", func(p []byte) []byte { return append(p, 0) }, "version 1 with 1359 bytes is not known"},
		{"empty", func(p []byte) []byte { return nil }, "version 1 with 0 bytes is not known"},
		{"negative size", func(p []byte) []byte { p[0] = 0xff; return p }, "volume size is -"},
		{"zero state", func(p []byte) []byte { p[40] = 0; return p }, "state 0 is not known"},
		{"unknown flag", func(p []byte) []byte { p[41] |= 4; return p }, "unknown flags 0x7"},
		{"reserved byte", func(p []byte) []byte { p[47] = 1; return p }, "unknown flags"},
		{"text longer than its field", func(p []byte) []byte { p[392] = 65; return p }, "not as long as it says"},
		{"text shorter than it is", func(p []byte) []byte { p[392] = 1; return p }, "not as long as it says"},
		{"control characters in a text", func(p []byte) []byte { p[1103] = '\n'; return p }, "not as long as it says"},
		{"no volume", func(p []byte) []byte { clear(p[522:587]); return p }, "name of the volume is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.change(bytes.Clone(payloadOf(t, testHeader())))
			_, _, err := DecodeHeader(headerImage(headerVersion, 1, p))
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want one about %q", err, tt.says)
			}
		})
	}
	if _, _, err := DecodeHeader(headerImage(2, 1, nil)); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer version gives %v", err)
	}
	if _, _, err := DecodeHeader(headerImage(0, 1, payloadOf(t, testHeader()))); err == nil {
		t.Error("version 0 is taken")
	}
}

func TestMatches(t *testing.T) {
	found := testHeader()
	want := Header{Cluster: "systel", Volume: "pgdata", Node: "alpha", Peer: "beta", DiskID: found.DiskID,
		Size: found.Size, RegionSize: found.RegionSize, IntentLimit: found.IntentLimit}
	if err := found.Matches(&want); err != nil {
		t.Errorf("the right header: %v", err)
	}
	for says, change := range map[string]func(h *Header){
		`its cluster is "systel", expected "other"`:         func(h *Header) { h.Cluster = "other" },
		`its volume is "pgdata", expected "logs"`:           func(h *Header) { h.Volume = "logs" },
		`its node is "alpha", expected "beta"; the disks`:   func(h *Header) { h.Node, h.Peer = "beta", "alpha" },
		`its peer is "beta", expected "gamma"`:              func(h *Header) { h.Peer = "gamma" },
		`its disk is "file:6f1c:131", expected "file:0:1";`: func(h *Header) { h.DiskID = "file:0:1" },
		`its size is "314572800", expected "1"`:             func(h *Header) { h.Size = 1 },
		`its region size is "1048576", expected "65536"`:    func(h *Header) { h.RegionSize = 65536 },
		`its limit of intents is "64", expected "4096"`:     func(h *Header) { h.IntentLimit = 4096 },
	} {
		other := want
		change(&other)
		if err := found.Matches(&other); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), says) {
			t.Errorf("error is %v, want %q", err, says)
		}
	}
}

func TestAdvance(t *testing.T) {
	var h Header
	for i := range byte(MaxAncestors + 3) {
		h.Advance(Generation{1 + i})
	}
	if h.Generation != (Generation{MaxAncestors + 3}) || h.Generations != MaxAncestors+3 {
		t.Errorf("generation is %v, number %d", h.Generation, h.Generations)
	}
	for i, a := range h.Ancestors {
		if want := (Generation{byte(MaxAncestors + 2 - i)}); a != want {
			t.Errorf("ancestor %d is %v, want %v", i, a, want)
		}
	}
	for g, want := range map[Generation]bool{
		{}: false, {1}: false, {2}: false, {3}: true, {MaxAncestors + 2}: true, {MaxAncestors + 3}: false,
	} {
		if h.Descends(g) != want {
			t.Errorf("Descends(%v) = %v", g, !want)
		}
	}
	if (&Header{Generation: Generation{1}}).Descends(Generation{}) {
		t.Error("the zero generation is an ancestor")
	}
}

func TestGeneration(t *testing.T) {
	g, err := NewGeneration(strings.NewReader("0123456789abcdefXXXX"))
	if err != nil || g.String() != "30313233" || g.Hex() != "30313233343536373839616263646566" || g.IsZero() {
		t.Errorf("drew %v, %s, %v", g, g.Hex(), err)
	}
	if g := (Generation{}); !g.IsZero() || g.String() != "none" {
		t.Errorf("the zero generation is %v", g)
	}
	for _, source := range []string{"", "too short", strings.Repeat("\x00", 16)} {
		if g, err := NewGeneration(strings.NewReader(source)); err == nil {
			t.Errorf("drew %v from %q", g, source)
		}
	}
}
