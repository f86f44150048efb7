// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"fmt"
	"iter"
)

// Write is a piece of metadata on its way to stable storage.
type Write struct {
	Offset int64 // in the metadata area
	Data   []byte
	Sync   bool // it and all before it must be durable before the next begins
}

// formatChunk is the most bytes of pages in one write of Format.
const formatChunk = 1 << 20

// FormatSequence is the sequence of the newest header and of the newest
// intents in an area that was just formatted.
const FormatSequence = 2

// Format returns the writes that make a metadata area for a header, in the
// order in which they are to be done: no block dirty, no intent set. Both
// headers are wiped first and written last, so that at every moment before the
// end the area is none, and never one that looks clean. The error says why the
// header cannot be stored. An area that holds metadata that somebody may want
// is not to be formatted: the first two writes take it apart.
func Format(h Header) (iter.Seq[Write], error) {
	l, err := h.Layout()
	if err != nil {
		return nil, fmt.Errorf("format metadata: %w", err)
	}
	var headers [2][HeaderSize]byte
	for i := range headers {
		if err := h.Encode(headers[i][:], FormatSequence-1+uint64(i)); err != nil {
			return nil, fmt.Errorf("format metadata: %w", err)
		}
	}
	return func(yield func(Write) bool) {
		zero := make([]byte, HeaderSize)
		_ = yield(Write{Offset: HeaderOffset(0), Data: zero}) &&
			yield(Write{Offset: HeaderOffset(1), Data: zero, Sync: true}) &&
			formatIntents(l, h.Salt, yield) &&
			formatPages(l, h.Salt, yield) &&
			yield(Write{Offset: HeaderOffset(FormatSequence - 1), Data: headers[0][:], Sync: true}) &&
			yield(Write{Offset: HeaderOffset(FormatSequence), Data: headers[1][:], Sync: true})
	}, nil
}

func formatIntents(l Layout, salt uint64, yield func(Write) bool) bool {
	in := NewIntents(l)
	for sequence := uint64(FormatSequence - 1); sequence <= FormatSequence; sequence++ {
		data := in.Encode(make([]byte, in.EncodedLen()), salt, sequence)
		if !yield(Write{Offset: l.IntentsOffset(sequence), Data: data}) {
			return false
		}
	}
	return true
}

func formatPages(l Layout, salt uint64, yield func(Write) bool) bool {
	b := NewBits(l.size)
	for page := 0; page < b.Pages(); {
		stop := min(page+formatChunk/PageSize, b.Pages())
		w := Write{
			Offset: l.PageOffset(page),
			Data:   make([]byte, (stop-page)*PageSize),
			Sync:   stop == b.Pages(),
		}
		for i := 0; page < stop; i, page = i+PageSize, page+1 {
			b.EncodePage(page, salt, w.Data[i:])
		}
		if !yield(w) {
			return false
		}
	}
	return true
}
