// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The kernel is a client like any other, only that it does no handshake: it is
// given connected sockets and told what a handshake would have agreed on.

const (
	// KernelTimeout is how long the kernel waits for the answer to a request
	// before it gives the connection up and sends the request on another. It
	// must always be said: the kernel keeps what an earlier user of the device
	// had set, or takes 30 s. It is small, for what was in flight when a daemon
	// died is sent again by its successor's connection only when this time has
	// passed; and longer than the standstills of a healthy pair, a switch or a
	// stop of 3 s, for it runs against a connection that is alive but slow too.
	// A longer standstill costs a connection, which is replaced.
	KernelTimeout = 4 * time.Second

	// KernelDeadAfter is how long the kernel holds requests when every connection
	// is dead: until a daemon is back, or a human has decided. After that they
	// fail, and the file system with them. In the kernel's ticks it must fit into
	// 31 bits on machines that have no more.
	KernelDeadAfter = 20 * 24 * time.Hour

	// KernelFlags are the transmission flags that are true and mean something to
	// the kernel. It could not flush, and would not know of more than one
	// connection, if nobody told.
	KernelFlags = FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagSendTrim | FlagSendZeroes | FlagCanMultiConn

	// KernelBlockSize is the best logical block size of a device, and the largest:
	// what the engine works with, so that no request of the kernel's cuts a block.
	KernelBlockSize = 4096
)

// ErrNoDriver says that this kernel has no NBD driver now.
var ErrNoDriver = errors.New("the kernel has no NBD driver loaded; hint: modprobe nbd")

// ErrDeviceBusy is what Connect returns for a device that somebody uses.
var ErrDeviceBusy = errors.New("the kernel says that it is in use")

// Driver is the kernel's NBD driver: Kernel, or, where its netlink family is not seen,
// one that gives ioctls. Its methods may be called by several goroutines. They return
// when the kernel has done what it was asked for, which may last while it cannot reach
// a connection: they take no context because nothing ends such a call.
type Driver interface {
	// Look says how a device is.
	Look(index int) (DeviceState, error)

	// Connect attaches.
	Connect(s Setup) error

	// Replaces reports whether there is a Reconfigure. Where there is none, a
	// device has one connection and does not outlive that, nor the process that
	// attached it, and who else has it open Look may not know.
	Replaces() bool

	// Reconfigure gives a device that is attached the connections of s in place of
	// dead ones. What it has no use for it closes.
	Reconfigure(s Setup) error

	// Disconnect detaches. What is still asked of the device fails from then on,
	// what waits at once, and nothing more is sent.
	Disconnect(index int) error

	// Watch calls lost with the index of a device whenever the kernel says that a
	// connection of it has died, until ctx ends.
	Watch(ctx context.Context, lost func(index int)) error

	// Tune sets the device's queue. It returns what the settings are now, and what
	// could not be set, a phrase each.
	Tune(index int) (said []string)

	// Node makes /dev/nbdN where it is missing.
	Node(index int) error
}

// Kernel is the driver as it is reached over netlink.
type Kernel struct {
	kernelFiles

	// ask sends a message to the driver and returns its answer, nil for one that
	// is only an acknowledgement.
	ask   func(command uint8, payload []byte) ([]byte, error)
	watch func(ctx context.Context, heard func(message []byte)) error
}

// kernelFiles are those in which the kernel shows its devices.
type kernelFiles struct {
	sys string // "/sys"
	dev string // "/dev"
}

// DeviceState is what the kernel knows of a device.
type DeviceState struct {
	There       bool   // else it is made by Connect
	Used        bool   // attached, or opened by somebody
	Attached    bool   // it has connections, alive or dead
	Backend     string // who attached it; "" also where nobody keeps that (before Linux 5.14)
	PID         int    // who attached it
	Size        int64  // bytes
	Connections int    // that it was attached with
	Holders     []string
}

// Connect attaches.
func (k *Kernel) Connect(s Setup) error {
	_, err := k.ask(kernelConnect, s.connect())
	return explain("attach", s.Index, err)
}

// Replaces is true.
func (k *Kernel) Replaces() bool { return true }

// Reconfigure replaces dead connections.
func (k *Kernel) Reconfigure(s Setup) error {
	_, err := k.ask(kernelReconfigure, s.reconfigure())
	return explain("give new connections to", s.Index, err)
}

// Disconnect detaches.
func (k *Kernel) Disconnect(index int) error {
	_, err := k.ask(kernelDisconnect, onlyIndex(index))
	return explain("disconnect", index, err)
}

// Watch hears of connections that die.
func (k *Kernel) Watch(ctx context.Context, lost func(index int)) error {
	return k.watch(ctx, func(message []byte) {
		if index, ok := parseLinkDead(message); ok {
			lost(index)
		}
	})
}

func explain(what string, index int, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s /dev/nbd%d: %w; hint: run twinbd as root, or give it CAP_SYS_ADMIN", what, index, err)
	}
	return fmt.Errorf("%s /dev/nbd%d: %w", what, index, err)
}

// Look says how a device is.
func (k *Kernel) Look(index int) (DeviceState, error) {
	answer, err := k.ask(kernelStatus, onlyIndex(index))
	if err != nil {
		return DeviceState{}, explain("look at", index, err)
	}
	s := k.shown(index)
	if s.Used, s.There, err = parseConnected(answer, index); err != nil {
		return DeviceState{}, explain("look at", index, err)
	}
	return s, nil
}

// shown is what sysfs shows of a device: all but whether it is used.
func (k *kernelFiles) shown(index int) (s DeviceState) {
	_, err := os.Stat(k.path(index, ""))
	s.There = err == nil
	pid, attached := k.read(index, "pid")
	s.Attached = attached
	s.PID, _ = strconv.Atoi(pid)
	s.Backend, _ = k.read(index, "backend")
	if text, ok := k.read(index, "size"); ok {
		sectors, _ := strconv.ParseInt(text, 10, 64)
		s.Size = sectors * 512
	}
	s.Connections = len(k.entries(index, "mq"))
	s.Holders = k.entries(index, "holders")
	return s
}

func (k *kernelFiles) path(index int, name string) string {
	return filepath.Join(k.sys, "block", "nbd"+strconv.Itoa(index), filepath.FromSlash(name))
}

// read returns a file of the device in sysfs, and whether it is there.
func (k *kernelFiles) read(index int, name string) (string, bool) {
	text, err := os.ReadFile(k.path(index, name))
	return string(bytes.TrimSpace(text)), err == nil
}

func (k *kernelFiles) entries(index int, name string) (names []string) {
	list, _ := os.ReadDir(k.path(index, name)) // not there: none
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// largestRequest is the longest request that the kernel shall make, in KiB. Its
// own 128 cost a large write twice the headers and turns. More would only make the
// small request wait that comes after.
const largestRequest = 256

// mostInFlight is what the kernel may have sent and not got an answer to, in KiB,
// when it only makes its longest requests. Each must be answered within
// KernelTimeout of when it was sent, or it costs the connection and is sent again. The
// kernel would send half a gigabyte of a cache that is written back; with this much
// 8 MB/s are enough.
const mostInFlight = 32 << 10

// largestDiscard is the longest TRIM, in bytes. The kernel would make them of 4 GiB:
// one that takes longer than KernelTimeout is sent again before its answer is
// there, and would be for ever.
const largestDiscard = 64 << 20

// Tune sets the device's queue: longer requests than the kernel's default, shorter
// discards, fewer at a time, and no scheduler, for what orders requests is on the
// other side. It returns what the settings are now, and what could not be set, a
// phrase each.
func (k *kernelFiles) Tune(index int) (said []string) {
	want := largestRequest
	if text, ok := k.read(index, "queue/max_hw_sectors_kb"); ok {
		if most, err := strconv.Atoi(text); err == nil {
			want = min(want, most)
		}
	}
	said = append(said, k.set(index, "queue/max_sectors_kb", strconv.Itoa(want)))
	if text, ok := k.read(index, "queue/discard_max_bytes"); ok {
		if most, err := strconv.Atoi(text); err == nil && most > largestDiscard {
			said = append(said, k.set(index, "queue/discard_max_bytes", strconv.Itoa(largestDiscard)))
		}
	}
	schedulers, _ := k.read(index, "queue/scheduler")
	switch {
	case strings.Contains(schedulers, "[none]"):
		said = append(said, "scheduler none")
	case strings.Contains(schedulers, "none"):
		said = append(said, k.set(index, "queue/scheduler", "none"))
	}
	if text, ok := k.read(index, "queue/nr_requests"); ok { // of each connection; a new scheduler has its own
		few := mostInFlight / want / max(1, len(k.entries(index, "mq")))
		if many, err := strconv.Atoi(text); err == nil && many > few {
			said = append(said, k.set(index, "queue/nr_requests", strconv.Itoa(few)))
		}
	}
	return said
}

func (k *kernelFiles) set(index int, name, value string) string {
	short := filepath.Base(filepath.FromSlash(name))
	if err := os.WriteFile(k.path(index, name), []byte(value), 0); err != nil {
		was, _ := k.read(index, name)
		return fmt.Sprintf("%s stays %s: %v", short, was, err)
	}
	return short + " " + value
}

// Node makes /dev/nbdN where it is missing: neither udev nor devtmpfs need run.
func (k *kernelFiles) Node(index int) error {
	path := filepath.Join(k.dev, "nbd"+strconv.Itoa(index))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	numbers, ok := k.read(index, "dev")
	if !ok {
		return fmt.Errorf("make %s: the kernel does not say its number", path)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(numbers, "%d:%d", &major, &minor); err != nil {
		return fmt.Errorf("make %s: number %q: %w", path, numbers, err)
	}
	return makeNode(path, major, minor)
}

// DeviceIndex returns N of /dev/nbdN.
func DeviceIndex(path string) (int, error) {
	text, ok := strings.CutPrefix(path, "/dev/nbd")
	n, err := strconv.ParseUint(text, 10, 20)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is not /dev/nbd0, /dev/nbd1, …", path)
	}
	return int(n), nil
}
