// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// What the kernel's driver is told over generic netlink, and what it tells: the
// numbers of linux/nbd-netlink.h, and attributes as netlink(7) has them, in the
// machine's own byte order. Pure bytes; kernel_linux.go has the socket.

const (
	kernelFamily  = "nbd"
	kernelGroup   = "nbd_mc_group" // who listens here hears of connections that died
	kernelVersion = 1
)

// Commands.
const (
	kernelConnect     = uint8(1)
	kernelDisconnect  = uint8(2)
	kernelReconfigure = uint8(3)
	kernelLinkDead    = uint8(4) // only ever heard
	kernelStatus      = uint8(5)
)

// Attributes.
const (
	attrIndex     = uint16(1) // u32
	attrSize      = uint16(2) // u64, bytes
	attrBlockSize = uint16(3) // u64, bytes
	attrTimeout   = uint16(4) // u64, seconds
	attrFlags     = uint16(5) // u64, the export's transmission flags
	attrSockets   = uint16(7) // nested: attrSocket…
	attrDeadAfter = uint16(8) // u64, seconds
	attrDevices   = uint16(9) // nested: attrDevice…
	attrBackend   = uint16(10)

	attrSocket   = uint16(1) // nested, in attrSockets: attrSocketFD
	attrSocketFD = uint16(1) // u32

	attrDevice          = uint16(1) // nested, in attrDevices: the two below
	attrDeviceIndex     = uint16(1) // u32
	attrDeviceConnected = uint16(2) // u8

	attrNested = uint16(1 << 15) // a flag beside the type
	attrTypes  = uint16(1<<14 - 1)
)

// controlNewFamily is what the controller says of a family: in its answer, and to its
// group when one is registered.
const controlNewFamily = uint8(1)

// Attributes of the controller, which knows the families (linux/genetlink.h).
const (
	controlFamilyID   = uint16(1) // u16
	controlFamilyName = uint16(2)
	controlGroups     = uint16(7) // nested: one for each, nested: the two below
	controlGroupName  = uint16(1)
	controlGroupID    = uint16(2) // u32
)

const (
	attrHeader    = 4 // length 2, type 2
	genericHeader = 4 // command 1, version 1, reserved 2
)

// Setup is what the kernel is told when a device is attached, or gets new
// connections in place of dead ones.
type Setup struct {
	Index     int // N of /dev/nbdN
	Size      int64
	BlockSize int    // logical, bytes
	Flags     uint16 // Flag…

	// Timeout is how long a request may stay without an answer, in whole
	// seconds; see the comment at KernelTimeout. DeadAfter is how long requests
	// wait for a new connection when all are dead.
	Timeout   time.Duration
	DeadAfter time.Duration

	Backend string // who attaches; the same at every Reconfigure
	Sockets []int  // the kernel's ends
}

// connect is the message that attaches.
func (s Setup) connect() []byte {
	b := appendUint32(nil, attrIndex, uint32(s.Index))
	b = appendUint64(b, attrSize, uint64(s.Size))
	b = appendUint64(b, attrBlockSize, uint64(s.BlockSize))
	b = appendUint64(b, attrFlags, uint64(s.Flags))
	return s.common(b)
}

// reconfigure is the message that replaces dead connections. It says neither
// size nor flags: those are not to change under a mounted file system.
func (s Setup) reconfigure() []byte {
	return s.common(appendUint32(nil, attrIndex, uint32(s.Index)))
}

func (s Setup) common(b []byte) []byte {
	b = appendUint64(b, attrTimeout, seconds(s.Timeout))
	b = appendUint64(b, attrDeadAfter, seconds(s.DeadAfter))
	var sockets []byte
	for _, fd := range s.Sockets {
		sockets = appendAttr(sockets, attrSocket|attrNested, appendUint32(nil, attrSocketFD, uint32(fd)))
	}
	b = appendAttr(b, attrSockets|attrNested, sockets)
	return appendAttr(b, attrBackend, append([]byte(s.Backend), 0))
}

// seconds rounds up: a limit is rather longer than asked for.
func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }

// onlyIndex is the message about a device of which nothing more is to be said.
func onlyIndex(index int) []byte { return appendUint32(nil, attrIndex, uint32(index)) }

func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendUint32(b []byte, kind uint16, value uint32) []byte {
	return appendAttr(b, kind, binary.NativeEndian.AppendUint32(nil, value))
}

func appendUint64(b []byte, kind uint16, value uint64) []byte {
	return appendAttr(b, kind, binary.NativeEndian.AppendUint64(nil, value))
}

// attribute is one that was received.
type attribute struct {
	kind  uint16
	value []byte
}

var errAttributes = errors.New("attributes cannot be read")

func parseAttributes(b []byte) (all []attribute, err error) {
	for len(b) >= attrHeader {
		length := int(binary.NativeEndian.Uint16(b))
		if length < attrHeader || length > len(b) {
			return nil, errAttributes
		}
		all = append(all, attribute{binary.NativeEndian.Uint16(b[2:]) & attrTypes, b[attrHeader:length]})
		b = b[min(len(b), (length+3)&^3):]
	}
	return all, nil
}

func (a attribute) uint32() (uint32, error) {
	if len(a.value) < 4 {
		return 0, errAttributes
	}
	return binary.NativeEndian.Uint32(a.value), nil
}

// find returns the first attribute of a kind.
func find(all []attribute, kind uint16) (attribute, bool) {
	for _, a := range all {
		if a.kind == kind {
			return a, true
		}
	}
	return attribute{}, false
}

// parseMessage takes a generic netlink message apart.
func parseMessage(b []byte) (command uint8, all []attribute, err error) {
	if len(b) < genericHeader {
		return 0, nil, errAttributes
	}
	all, err = parseAttributes(b[genericHeader:])
	return b[0], all, err
}

// parseConnected reads from the answer to kernelStatus whether a device is in
// use: attached, or held open. One that the kernel does not name is not there.
func parseConnected(b []byte, index int) (connected, there bool, err error) {
	_, all, err := parseMessage(b)
	if err != nil {
		return false, false, err
	}
	list, _ := find(all, attrDevices)
	devices, err := parseAttributes(list.value)
	if err != nil {
		return false, false, err
	}
	for _, d := range devices {
		about, err := parseAttributes(d.value)
		if err != nil {
			return false, false, err
		}
		number, _ := find(about, attrDeviceIndex)
		n, err := number.uint32()
		if err != nil {
			return false, false, err
		}
		if state, ok := find(about, attrDeviceConnected); ok && int(n) == index {
			return len(state.value) > 0 && state.value[0] != 0, true, nil
		}
	}
	return false, false, nil
}

// parseLinkDead returns the index of the device that a message says has lost a
// connection; ok is false for messages of any other kind.
func parseLinkDead(b []byte) (index int, ok bool) {
	command, all, err := parseMessage(b)
	if err != nil || command != kernelLinkDead {
		return 0, false
	}
	a, _ := find(all, attrIndex)
	n, err := a.uint32()
	return int(n), err == nil
}

// parseFamily reads from the controller's answer under which numbers the driver
// and its group are reached.
func parseFamily(b []byte) (family uint16, group uint32, err error) {
	_, all, err := parseMessage(b)
	if err != nil {
		return 0, 0, err
	}
	id, ok := find(all, controlFamilyID)
	if !ok || len(id.value) < 2 {
		return 0, 0, fmt.Errorf("no family in the answer: %w", errAttributes)
	}
	family = binary.NativeEndian.Uint16(id.value)
	list, _ := find(all, controlGroups)
	groups, err := parseAttributes(list.value)
	if err != nil {
		return 0, 0, err
	}
	for _, g := range groups {
		about, err := parseAttributes(g.value)
		if err != nil {
			return 0, 0, err
		}
		name, _ := find(about, controlGroupName)
		if string(bytes.TrimRight(name.value, "\x00")) != kernelGroup {
			continue
		}
		number, _ := find(about, controlGroupID)
		group, err = number.uint32()
		return family, group, err
	}
	return family, 0, nil
}

// parseNewDriver returns the group of a driver that was loaded just now; ok is false
// for anything else that the controller says.
func parseNewDriver(b []byte) (group uint32, ok bool) {
	command, all, err := parseMessage(b)
	name, _ := find(all, controlFamilyName)
	if err != nil || command != controlNewFamily || string(bytes.TrimRight(name.value, "\x00")) != kernelFamily {
		return 0, false
	}
	_, group, err = parseFamily(b)
	return group, err == nil && group != 0
}
