// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/twinbd/twinbd/internal/block"
)

// A connection carries frames. The node opens with hello, the witness says
// welcome with the version that both use from then on; after that each read or
// change of the node gets one answer or failure, in order.
//
//	offset size
//	     0    4  magic "TBDW"
//	     4    2  type
//	     6    2  zero
//	     8    8  number of the call; an answer has that of its call
//	    16    4  length of the body in bytes, at most 4096
//	    20    4  crc32c of bytes 0 to 19 and of the body
//	    24    …  body
//
// The header, hello, welcome and failure are the same in every version.

const (
	frameMagic  = 0x54424457
	frameHeader = 24
	maxBody     = 4096
)

// The versions of the protocol that this program speaks.
const (
	minVersion = 1
	maxVersion = 1
)

type frameType uint16

const (
	frameHello   frameType = 1
	frameWelcome frameType = 2
	frameRead    frameType = 3
	frameChange  frameType = 4
	frameAnswer  frameType = 5
	frameFailure frameType = 6
)

type frame struct {
	kind frameType
	call uint64
	body []byte
}

func (f *frame) append(b []byte) []byte {
	if len(f.body) > maxBody {
		panic(fmt.Sprintf("failover: frame body of %d bytes, at most %d", len(f.body), maxBody))
	}
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, frameMagic)
	b = binary.BigEndian.AppendUint16(b, uint16(f.kind))
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint64(b, f.call)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.body)))
	b = binary.BigEndian.AppendUint32(b, frameSum(b[start:], f.body))
	return append(b, f.body...)
}

// readFrame reads one frame. io.EOF says that the stream ended between two.
func readFrame(r io.Reader) (frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	length := binary.BigEndian.Uint32(h[16:])
	switch {
	case binary.BigEndian.Uint32(h[0:]) != frameMagic:
		return frame{}, fmt.Errorf("%w: this is not the protocol of a twinbd witness", errMalformed)
	case binary.BigEndian.Uint16(h[6:]) != 0 || length > maxBody:
		return frame{}, fmt.Errorf("%w: frame header", errMalformed)
	}
	f := frame{
		kind: frameType(binary.BigEndian.Uint16(h[4:])),
		call: binary.BigEndian.Uint64(h[8:]),
		body: make([]byte, length),
	}
	if _, err := io.ReadFull(r, f.body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	if binary.BigEndian.Uint32(h[20:]) != frameSum(h[:20], f.body) {
		return frame{}, fmt.Errorf("%w: checksum does not match", errMalformed)
	}
	return f, nil
}

func frameSum(header, body []byte) uint32 {
	return crc32.Update(crc32.Update(0, block.Castagnoli, header[:20]), block.Castagnoli, body)
}

func helloBody() []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, minVersion), maxVersion)
}

// chooseVersion answers a hello: the highest version that both speak.
func chooseVersion(hello []byte) (uint16, error) {
	d := decoder{b: hello}
	lowest, highest := d.uint16(), d.uint16()
	switch {
	case d.bad || lowest > highest:
		return 0, fmt.Errorf("%w: hello", errMalformed)
	case lowest > maxVersion || highest < minVersion:
		return 0, fmt.Errorf("%w: the node speaks versions %d to %d, the witness %d to %d; hint: upgrade the older one",
			ErrVersion, lowest, highest, minVersion, maxVersion)
	}
	return min(highest, maxVersion), nil
}

// ErrIdentity: a node asked in another's name. ErrVersion: node and witness have
// no version of the protocol in common.
var (
	ErrIdentity = errors.New("wrong identity")
	ErrVersion  = errors.New("no common version")
)

// failureCodes are the errors that keep their identity over the wire.
var failureCodes = map[uint16]error{
	1: ErrBadRequest,
	2: ErrIdentity,
	3: ErrVersion,
	4: ErrUnusable,
	5: ErrFull,
}

// failureBody encodes an error; one without a code is a bad request.
func failureBody(err error) []byte {
	code := uint16(1)
	for c, known := range failureCodes {
		if errors.Is(err, known) {
			code = c
		}
	}
	return appendText(binary.BigEndian.AppendUint16(nil, code), err.Error())
}

// Failure is an error that the witness reported instead of an answer. It wraps
// one of ErrBadRequest, ErrIdentity, ErrVersion, ErrUnusable and ErrFull, unless
// the witness is newer and has others.
type Failure struct {
	Text string // one sentence
	kind error
}

func (f *Failure) Error() string { return f.Text }
func (f *Failure) Unwrap() error { return f.kind }

func decodeFailure(b []byte) error {
	d := decoder{b: b}
	f := &Failure{kind: failureCodes[d.uint16()], Text: d.text()}
	if err := d.end("failure"); err != nil {
		return err
	}
	return f
}
