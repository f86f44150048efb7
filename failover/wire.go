// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bodies of the messages. All numbers are big endian; a name is one byte of
// length and its bytes; a text is two bytes of length and its UTF-8. Flags that
// are not named are zero.
//
//	hello    lowest version 2, highest version 2 (whatever follows is ignored)
//	welcome  version 2 (whatever follows is ignored)
//	read     cluster, service, from: names; known 8, seen 8, flags 1 (1: serving)
//	change   cluster, service, from: names; replaces 8, raise to 8, holder: name, mode 1, flags 1 (1: operator), token 16, seen 8
//	answer   flags 1 (1: granted, 2: void), serial 8, record, reason: text
//	failure  code 2, reason: text
//	record   epoch 8, holder: name, mode 1, token 16, digest 32
//
// The form of change is also what a Digest is made of, and that of a record is
// also what a file holds: neither changes when a later version of the protocol
// does.

// maxText is the longest text in bytes; what is longer is cut when it is sent.
const maxText = 1024

// Flags in messages.
const (
	flagServing  = 1 << 0 // read
	flagOperator = 1 << 0 // change
	flagGranted  = 1 << 0 // answer
	flagVoid     = 1 << 1 // answer
)

var errMalformed = errors.New("malformed message")

func (q *Query) append(b []byte) []byte {
	b = appendName(b, q.Cluster)
	b = appendName(b, q.Service)
	b = appendName(b, q.From)
	b = binary.BigEndian.AppendUint64(b, q.Known)
	b = binary.BigEndian.AppendUint64(b, q.Seen)
	return append(b, flagIf(q.Serving, flagServing))
}

func decodeQuery(b []byte) (q Query, err error) {
	d := decoder{b: b}
	q.Cluster, q.Service, q.From = d.name(), d.name(), d.name()
	q.Known, q.Seen = d.uint64(), d.uint64()
	q.Serving = d.flags(flagServing)&flagServing != 0
	return q, d.end("read")
}

func (q *Request) append(b []byte) []byte {
	b = appendName(b, q.Cluster)
	b = appendName(b, q.Service)
	b = appendName(b, q.From)
	b = binary.BigEndian.AppendUint64(b, q.Replaces)
	b = binary.BigEndian.AppendUint64(b, q.RaiseTo)
	b = appendName(b, q.Holder)
	b = append(b, byte(q.Mode), flagIf(q.Operator, flagOperator))
	b = append(b, q.Token[:]...)
	return binary.BigEndian.AppendUint64(b, q.Seen)
}

func decodeRequest(b []byte) (q Request, err error) {
	d := decoder{b: b}
	q.Cluster, q.Service, q.From = d.name(), d.name(), d.name()
	q.Replaces, q.RaiseTo = d.uint64(), d.uint64()
	q.Holder, q.Mode = d.name(), Mode(d.uint8())
	q.Operator = d.flags(flagOperator)&flagOperator != 0
	d.copy(q.Token[:])
	q.Seen = d.uint64()
	return q, d.end("change")
}

func (a *Answer) append(b []byte) []byte {
	b = append(b, flagIf(a.Granted, flagGranted)|flagIf(a.Void, flagVoid))
	b = binary.BigEndian.AppendUint64(b, a.Serial)
	b = a.Record.append(b)
	return appendText(b, a.Reason)
}

func decodeAnswer(b []byte) (a Answer, err error) {
	d := decoder{b: b}
	flags := d.flags(flagGranted | flagVoid)
	a.Granted, a.Void = flags&flagGranted != 0, flags&flagVoid != 0
	a.Serial = d.uint64()
	a.Record = d.record()
	a.Reason = d.text()
	return a, d.end("answer")
}

func (r *Record) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, r.Epoch)
	b = appendName(b, r.Holder)
	b = append(b, byte(r.Mode))
	b = append(b, r.Token[:]...)
	return append(b, r.Digest[:]...)
}

func appendName(b []byte, s string) []byte {
	if len(s) > 255 {
		s = s[:255] // no valid name is longer; the receiver refuses it
	}
	return append(append(b, byte(len(s))), s...)
}

func appendText(b []byte, s string) []byte {
	s = printable(s)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// printable is s as one line that no terminal takes for a command, and not too
// long.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
	if len(s) > maxText {
		s = s[:maxText]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return s
}

func flagIf(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

// decoder takes a message apart. After the first thing that is wrong it returns
// zeroes, and end tells.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) uint8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) copy(p []byte) { copy(p, d.take(len(p))) }

func (d *decoder) name() string { return string(d.take(int(d.uint8()))) }

// flags refuses bits that this version does not know.
func (d *decoder) flags(known uint8) uint8 {
	f := d.uint8()
	d.bad = d.bad || f&^known != 0
	return f
}

func (d *decoder) text() string {
	s := string(d.take(int(d.uint16())))
	d.bad = d.bad || s != printable(s)
	return s
}

// record accepts an empty one, or a whole one.
func (d *decoder) record() (r Record) {
	r.Epoch, r.Holder, r.Mode = d.uint64(), d.name(), Mode(d.uint8())
	d.copy(r.Token[:])
	d.copy(r.Digest[:])
	switch {
	case d.bad:
		return Record{}
	case r.Empty():
		d.bad = r != Record{}
	default:
		d.bad = r.Epoch > MaxEpoch || !r.Mode.valid() || CheckName("holder", r.Holder) != nil
	}
	return r
}

// end reports what was wrong, bytes left over included.
func (d *decoder) end(what string) error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: %s", errMalformed, what)
	}
	return nil
}
