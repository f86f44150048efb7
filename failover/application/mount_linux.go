// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"fmt"
	"time"
)

func isMounted(device string) (bool, error) {
	_, mounted, err := mountedFrom(device)
	return mounted, err
}

// look says what is mounted at the place, and from where if that is foreign.
func (m Mount) look() (occupation, string, error) {
	top, mounted, err := mountedAt(m.At)
	switch {
	case err != nil || !mounted:
		return free, "", err
	case top.isOf(m.Device):
		return ours, "", nil
	default:
		return foreign, top.source, nil
	}
}

// users are the processes that use what is mounted. That is told to a human:
// what cannot be seen is left out.
func (m Mount) users() []Process {
	h, err := newHolders(m.At)
	if err != nil {
		return nil
	}
	found, _ := h.processes()
	return found
}

// killing is how long the users' end may take: a part of a forced step's time,
// for detaching is more important.
const killing = 2 * time.Second

// kill ends who uses what is mounted.
func (m Mount) kill(ctx context.Context) error {
	h, err := newHolders(m.At)
	if err != nil {
		return fmt.Errorf("look for users of %s: %w", m.At, err)
	}
	if err := gone(h, killing, ctx.Done(), h.kill); err != nil {
		return fmt.Errorf("kill users of %s: %w", m.At, err)
	}
	return nil
}
