// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
)

// alphaState is what status shows of alpha's device.
func (l *lab) alphaState() (state string, problems []control.Problem) {
	st := l.nodes["alpha"].node.Status().Services[0].Volumes[0]
	return st.DeviceState, st.Problems
}

// A device that is attached by ioctl has one connection, is used and detached like any
// other, and keeps its process from being replaced.
func TestDeviceByIoctl(t *testing.T) {
	l, alpha, beta := deviceLab(t, "normal")
	alpha.byIoctl()
	l.prim("alpha")
	l.waitFor("alpha", control.Primary)
	alpha.until("attached", alpha.attached)
	mustRequest(t, alpha, block.Write, 4096, pattern(1))
	l.await("one connection", func() bool {
		state, _ := l.alphaState()
		return state == "attached, 1 connections, by ioctl"
	})
	n := l.nodes["alpha"].node
	if _, err := n.HandOn(t.Context()); !errors.Is(err, errServesOn) || n.HandedOn() ||
		!strings.Contains(err.Error(), "volume data: /dev/nbd0 was attached by ioctl, and would not outlive this process; hint: `twinbd switch` first") {
		t.Errorf("handed on: %t, %v", n.HandedOn(), err)
	}
	mustRequest(t, alpha, block.Flush, 0, nil)
	if err := l.act("alpha", "switch"); err != nil {
		t.Fatal(err)
	}
	beta.until("attached", beta.attached)
	if asked := alpha.done(); !slices.Equal(asked, []string{"connect", "disconnect"}) {
		t.Errorf("asked %v", asked)
	}
	got := make([]byte, 8192)
	mustRequest(t, beta, block.Read, 4096, got)
	if !bytes.Equal(got, pattern(1)) {
		t.Error("what was written at alpha is not read at beta")
	}
	l.waitFor("alpha", control.Secondary)
	if left, err := n.HandOn(t.Context()); err != nil || len(left.Sockets["data"]) != 0 {
		t.Errorf("without the device, handed on %+v: %v", left, err)
	}
	l.stop("alpha")
	l.startAfter("alpha", nil)
}

// When its connection dies, such a device is disconnected, once, and that is said
// until something is done.
func TestDeviceByIoctlIsLost(t *testing.T) {
	l, alpha, _ := deviceLab(t, "normal")
	alpha.byIoctl()
	l.prim("alpha")
	l.waitFor("alpha", control.Primary)
	alpha.until("attached", alpha.attached)
	mustRequest(t, alpha, block.Write, 0, pattern(1))
	alpha.mu.Lock()
	one := alpha.ends[0]
	alpha.mu.Unlock()
	alpha.kill(one)
	alpha.until("disconnected", func() bool { return slices.Contains(alpha.asked, "disconnect") })
	if err := alpha.request(block.Write, 0, pattern(2)); !errors.Is(err, errNoDevice) {
		t.Errorf("a write to what is lost: %v", err)
	}
	l.await("the problem", func() bool {
		state, problems := l.alphaState()
		return state == "detached" && len(problems) == 1 &&
			strings.Contains(problems[0].Message, "/dev/nbd0 has lost its connection, which cannot be replaced") && strings.Contains(problems[0].Hint, "`twinbd switch`")
	})
	wait(t.Context(), mendRetry+mendRetry/2)
	if asked := alpha.done(); !slices.Equal(asked, []string{"connect", "disconnect"}) {
		t.Errorf("asked %v", asked)
	}
	if err := l.act("alpha", "attach"); err != nil {
		t.Fatal(err)
	}
	mustRequest(t, alpha, block.Write, 0, pattern(3))
	if state, problems := l.alphaState(); !strings.HasSuffix(state, ", by ioctl") || len(problems) != 0 {
		t.Errorf("attached again: %s, %v", state, problems)
	}
}

// await waits until something shows.
func (l *lab) await(what string, is func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); wait(l.t.Context(), time.Millisecond) {
		if time.Now().After(deadline) {
			state, problems := l.alphaState()
			l.t.Fatalf("not within 20 s: %s; the device is %s, problems %v", what, state, problems)
		}
	}
}
