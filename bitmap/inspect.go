// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/twinbd/twinbd/internal/block"
)

// listed is how many ranges or generations Print shows before it only counts.
const listed = 8

// Print writes what is in a metadata area for a human, a line per fact. The
// same metadata gives the same text. The error is w's.
func Print(w io.Writer, m *Metadata) error {
	var p printer
	p.names(m)
	p.worth(&m.Header)
	p.generations(&m.Header)
	p.differences(m)
	p.copies(m)
	_, err := w.Write(p.Bytes())
	return err
}

type printer struct{ bytes.Buffer }

func (p *printer) line(label, format string, args ...any) {
	fmt.Fprintf(p, "%-12s ", label)
	fmt.Fprintf(p, format, args...)
	p.WriteByte('\n')
}

func (p *printer) names(m *Metadata) {
	h := &m.Header
	p.line("volume", "%s", h.Volume)
	if h.Service != "" {
		p.line("service", "%s", h.Service)
	}
	p.line("cluster", "%s", h.Cluster)
	p.line("node", "%s, peer %s", h.Node, h.Peer)
	p.line("disk", "%s", h.DiskID)
	if h.VolumeID == [16]byte{} {
		p.line("volume id", "none: it was never served")
	} else {
		p.line("volume id", "%x", h.VolumeID)
	}
	p.line("size", "%s (%d bytes), %s per region", sizeText(h.Size), h.Size, sizeText(h.RegionSize))
}

// worth is what the copy may be used for.
func (p *printer) worth(h *Header) {
	text := map[State]string{
		Blank:        "blank: never initialised, reads as zeroes",
		Fresh:        "fresh: never initialised, content unknown",
		Inconsistent: "inconsistent: a resync into it has not ended, it cannot serve",
		Consistent:   "consistent",
		Failed:       "failed",
	}[h.State]
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	p.line("state", "%s", text)
	switch {
	case h.Serving:
		p.line("role", "serves; if it did not stop in good order it may hold writes that its peer lacks")
	case h.LastPrimary:
		p.line("role", "served last, and stopped in good order")
	default:
		p.line("role", "did not serve last")
	}
	if h.Forced != "" {
		p.line("forced", "%s", h.Forced)
	}
}

func (p *printer) generations(h *Header) {
	p.line("generation", "%s", generationText(h.Generation))
	if h.Generations > 0 {
		p.line("", "number %d in the life of this copy", h.Generations)
	}
	if !h.Base.IsZero() {
		p.line("peer left at", "%s", generationText(h.Base))
	}
	if !h.Intended.IsZero() {
		p.line("resync to", "%s, resync %d", generationText(h.Intended), h.ResyncID)
	}
	n := 0
	for n < MaxAncestors && !h.Ancestors[n].IsZero() {
		n++
	}
	for i := range min(n, listed) {
		label := ""
		if i == 0 {
			label = "ancestors"
		}
		p.line(label, "%s", generationText(h.Ancestors[i]))
	}
	if n > listed {
		p.line("", "and %d older", n-listed)
	}
}

// differences is where the copies may differ.
func (p *printer) differences(m *Metadata) {
	n := m.Bits.Count()
	p.line("dirty", "%d of %d blocks (%s)%s", n, m.Bits.Blocks(), sizeText(min(n*block.Size, m.Header.Size)), dirtyRuns(m.Bits))
	p.line("intents", "%d of %d set%s", len(m.Regions), m.Header.IntentLimit, regionRuns(m.Regions))
	p.line("", "sequence %d, %s", m.IntentsSequence, copiesText(m.IntentsErrors))
	if m.IntentsLost {
		p.line("", "intents were lost: all blocks count as dirty")
	}
	if len(m.BadPages) > 0 {
		runs := make([]Run, 0, len(m.BadPages))
		for _, page := range m.BadPages {
			runs = appendRun(runs, int64(page))
		}
		p.line("bad pages", "%d of %d, all dirty%s", len(m.BadPages), m.Bits.Pages(), runsText(runs))
	}
}

// copies is how the area itself is.
func (p *printer) copies(m *Metadata) {
	p.line("header", "sequence %d, %s; moment %d, the peer's %d", m.Sequence, copiesText(m.HeaderErrors), m.Header.Moment, m.Header.PeerMoment)
	p.line("area", "%s in %d pages, salt %016x", sizeText(m.Layout.Bytes()), m.Layout.Pages(), m.Header.Salt)
}

func copiesText(errs [2]error) string {
	if errs[0] == nil && errs[1] == nil {
		return "both copies good"
	}
	var bad []string
	for i, err := range errs {
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s copy: %v", [2]string{"first", "second"}[i], err))
		}
	}
	return strings.Join(bad, ", ")
}

func generationText(g Generation) string {
	if g.IsZero() {
		return "none"
	}
	return g.Hex()
}

func dirtyRuns(b *Bits) string {
	var runs []Run
	for from := int64(0); len(runs) <= listed; {
		first, count, ok := b.Next(from, b.Blocks())
		if !ok {
			break
		}
		runs = append(runs, Run{first, count})
		from = first + count
	}
	return runsText(runs)
}

func regionRuns(regions []uint32) string {
	var runs []Run
	for _, region := range regions {
		runs = appendRun(runs, int64(region))
	}
	return runsText(runs)
}

// appendRun adds n, which is beyond all runs, to the last run or as a new one.
func appendRun(runs []Run, n int64) []Run {
	if last := len(runs) - 1; last >= 0 && runs[last].First+runs[last].Count == n {
		runs[last].Count++
		return runs
	}
	return append(runs, Run{n, 1})
}

func runsText(runs []Run) string {
	var s strings.Builder
	for i, r := range runs {
		switch {
		case i == 0:
			s.WriteString(": ")
		case i == listed:
			s.WriteString(", …")
			return s.String()
		default:
			s.WriteString(", ")
		}
		fmt.Fprintf(&s, "%d", r.First)
		if r.Count > 1 {
			fmt.Fprintf(&s, "-%d", r.First+r.Count-1)
		}
	}
	return s.String()
}

// sizeText is exact for whole units and has one decimal otherwise.
func sizeText(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	unit, u := int64(1), 0
	for u+1 < len(units) && n >= unit<<10 {
		unit, u = unit<<10, u+1
	}
	if n%unit == 0 {
		return fmt.Sprintf("%d %s", n/unit, units[u])
	}
	return fmt.Sprintf("%.1f %s", float64(n)/float64(unit), units[u])
}
