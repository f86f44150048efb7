// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The bodies of the messages. All numbers are big endian; a name is one byte of
// length and its bytes; a text is two bytes of length and its UTF-8. Flags that
// are not named are zero.
//
//	hello    lowest version 2, highest version 2 (whatever follows is ignored)
//	welcome  version 2 (whatever follows is ignored)
//	read     cluster, service, from: names; knows: view, seen: stamp, timeout: duration, flags 1 (1: serving)
//	change   cluster, service, from: names; replaces 8, raise to 8, claim 8, holder: name, mode 1, flags 1 (1: operator),
//	         token 16, seen: stamp, timeout: duration
//	answer   flags 1 (1: granted, 2: void, 4: renewed), wait: duration, stamp, record, reason: text
//	failure  code 2, reason: text
//	record   view, token 16, digest 32, timeout: duration
//	view     epoch 8, holder: name, mode 1; all zero for none
//	stamp    run 8, at: duration; both zero for none
//	duration 8: nanoseconds, at most 2^63-1
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
	flagRenewed  = 1 << 2 // answer
)

var errMalformed = errors.New("malformed message")

func (q *Query) append(b []byte) []byte {
	b = appendName(b, q.Cluster)
	b = appendName(b, q.Service)
	b = appendName(b, q.From)
	b = q.Knows.append(b)
	b = q.Seen.append(b)
	b = appendDuration(b, q.Timeout)
	return append(b, flagIf(q.Serving, flagServing))
}

func decodeQuery(b []byte) (q Query, err error) {
	d := decoder{b: b}
	q.Cluster, q.Service, q.From = d.name(), d.name(), d.name()
	q.Knows, q.Seen, q.Timeout = d.view(), d.stamp(), d.duration()
	q.Serving = d.flags(flagServing)&flagServing != 0
	return q, d.end("read")
}

func (q *Request) append(b []byte) []byte {
	b = appendName(b, q.Cluster)
	b = appendName(b, q.Service)
	b = appendName(b, q.From)
	b = binary.BigEndian.AppendUint64(b, q.Replaces)
	b = binary.BigEndian.AppendUint64(b, q.RaiseTo)
	b = binary.BigEndian.AppendUint64(b, q.Claim)
	b = appendName(b, q.Holder)
	b = append(b, byte(q.Mode), flagIf(q.Operator, flagOperator))
	b = append(b, q.Token[:]...)
	b = q.Seen.append(b)
	return appendDuration(b, q.Timeout)
}

func decodeRequest(b []byte) (q Request, err error) {
	d := decoder{b: b}
	q.Cluster, q.Service, q.From = d.name(), d.name(), d.name()
	q.Replaces, q.RaiseTo, q.Claim = d.uint64(), d.uint64(), d.uint64()
	q.Holder, q.Mode = d.name(), Mode(d.uint8())
	q.Operator = d.flags(flagOperator)&flagOperator != 0
	d.copy(q.Token[:])
	q.Seen, q.Timeout = d.stamp(), d.duration()
	return q, d.end("change")
}

func (a *Answer) append(b []byte) []byte {
	b = append(b, flagIf(a.Granted, flagGranted)|flagIf(a.Void, flagVoid)|flagIf(a.Renewed, flagRenewed))
	b = appendDuration(b, a.Wait)
	b = a.Stamp.append(b)
	b = a.Record.append(b)
	return appendText(b, a.Reason)
}

func decodeAnswer(b []byte) (a Answer, err error) {
	d := decoder{b: b}
	flags := d.flags(flagGranted | flagVoid | flagRenewed)
	a.Granted, a.Void, a.Renewed = flags&flagGranted != 0, flags&flagVoid != 0, flags&flagRenewed != 0
	a.Wait, a.Stamp = d.duration(), d.stamp()
	a.Record = d.record()
	a.Reason = d.text()
	return a, d.end("answer")
}

func (r *Record) append(b []byte) []byte {
	b = r.View().append(b)
	b = append(b, r.Token[:]...)
	b = append(b, r.Digest[:]...)
	return appendDuration(b, r.Timeout)
}

func (v View) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, v.Epoch)
	b = appendName(b, v.Holder)
	return append(b, byte(v.Mode))
}

func (s Stamp) append(b []byte) []byte {
	return appendDuration(binary.BigEndian.AppendUint64(b, s.Run), s.At)
}

func appendDuration(b []byte, t time.Duration) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t))
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

// duration refuses a negative one.
func (d *decoder) duration() time.Duration {
	t := time.Duration(d.uint64())
	d.bad = d.bad || t < 0
	return t
}

// view accepts an empty one, or a whole one.
func (d *decoder) view() View {
	v := View{Epoch: d.uint64(), Holder: d.name(), Mode: Mode(d.uint8())}
	d.bad = d.bad || v.check() != nil
	return v
}

// stamp accepts an empty one, or a whole one.
func (d *decoder) stamp() Stamp {
	s := Stamp{Run: d.uint64(), At: d.duration()}
	d.bad = d.bad || s.Run == 0 && s.At != 0
	return s
}

// record accepts an empty one, or a whole one.
func (d *decoder) record() (r Record) {
	v := d.view()
	r.Epoch, r.Holder, r.Mode = v.Epoch, v.Holder, v.Mode
	d.copy(r.Token[:])
	d.copy(r.Digest[:])
	r.Timeout = d.duration()
	switch {
	case d.bad:
		return Record{}
	case r.Empty():
		d.bad = r != Record{}
	default:
		d.bad = checkTimeout(r.Timeout) != nil
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
